"""Files: written whole or not at all, folders found through their own settings."""

import errno
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from s2flib import files
from s2flib.errors import S2FError
from s2flib.files import (
    atomic_path,
    available_cpus,
    cache_dir,
    csv_text,
    data_dir,
    read_csv,
    results_dir,
    sha256_of,
    weights_dir,
    write_text,
)
from s2flib.images import save_image


def test_atomic_path_leaves_the_old_file_when_anything_fails(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as part:
        assert part.parent == tmp_path and part.suffix == ".npz"
        part.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights.npz"]
    with atomic_path(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["weights.npz"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors words it
    ],
)
def test_a_full_disk_is_one_sentence(tmp_path, error):
    with pytest.raises(S2FError, match="the disk is full") as e, atomic_path(tmp_path / "a.bin") as part:
        part.write_bytes(b"half")
        raise error
    assert str(tmp_path / "a.bin") in str(e.value) and os.listdir(tmp_path) == []


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ValueError, match="mine"), atomic_path(tmp_path / "a.bin") as part:
        part.write_bytes(b"x")
        raise ValueError("mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(S2FError, match="cannot be written"), atomic_path(tmp_path / "file" / "a.bin"):
        pass


def test_a_real_write_limit_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the picture needs 120,000 bytes
    try:
        with pytest.raises(S2FError, match="cannot be written"):
            save_image(tmp_path / "a.png", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_data_weights_and_downloads_are_found_by_their_own_settings(tmp_path, monkeypatch):
    for name in ("S2F_DATA", "S2F_WEIGHTS", "S2F_CACHE"):
        monkeypatch.delenv(name, raising=False)
    shipped = data_dir()
    assert weights_dir() == shipped / "weights" and (shipped / "synthfaces" / "manifest.csv").is_file()
    assert cache_dir().parts[-2:] == (".cache", "s2flib")
    for name, folder in (("S2F_DATA", data_dir), ("S2F_WEIGHTS", weights_dir), ("S2F_CACHE", cache_dir)):
        before = [f() for f in (data_dir, weights_dir, cache_dir)]
        monkeypatch.setenv(name, str(tmp_path / name))
        after = [f() for f in (data_dir, weights_dir, cache_dir)]
        assert folder() == tmp_path / name and sum(a != b for a, b in zip(before, after, strict=True)) == 1
    monkeypatch.setenv("S2F_DATA", "~/faces")
    assert data_dir() == Path.home() / "faces"


def test_text_is_never_written_over_unasked(tmp_path):
    path = write_text(tmp_path / "new" / "a.txt", "σ\n")
    assert path.read_text(encoding="utf-8") == "σ\n"
    with pytest.raises(S2FError, match="exists already"):
        write_text(path, "other")
    assert write_text(path, "other", overwrite=True).read_text() == "other"


def test_sha256_is_the_standards(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_there_is_a_core():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        ({"cpu.max": "300000 100000\n"}, 3),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_of_cores(tmp_path, monkeypatch, contents, cores):
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(files, "_affinity", lambda: 8)
    assert available_cpus(tmp_path) == cores


def test_threads_are_no_more_than_a_containers_cores(monkeypatch):
    monkeypatch.setattr(files, "_affinity", lambda: 8)
    monkeypatch.setattr(files, "_quota", lambda cgroup: None)
    assert files.thread_settings() == files.PATIENT_THREADS
    monkeypatch.setattr(files, "_quota", lambda cgroup: 3)
    assert files.thread_settings() == files.PATIENT_THREADS | {"OMP_NUM_THREADS": "3"}


# --- one process per folder


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
    code = (
        "import sys, time\nfrom s2flib.files import claimed\n"
        "with claimed(sys.argv[1]):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(S2FError, match="in use by another s2f process"), files.claimed(tmp_path / "run"):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with files.claimed(tmp_path / "run"):  # a killed process keeps nothing
        pass


def test_claiming_removes_what_a_kill_left(tmp_path):
    kept = ["checkpoint.pt", ".hidden", ".gitignore", ".checkpoint.pt", "a.0123abcd.pt"]
    left = [".checkpoint.0123abcd.pt", ".log.ffffffff.csv", ".noending.00000000"]
    for name in kept + left:
        (tmp_path / name).touch()
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / ".0001.0123abcd.png").touch()
    with files.atomic_path(tmp_path / "x.json") as part:
        assert files._PART.fullmatch(part.name)
        part.write_text("{}")
    with files.claimed(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == sorted([*kept, "x.json", "samples"])
    assert not any((tmp_path / "samples").iterdir())


def test_writing_removes_old_parts_of_the_same_file(tmp_path):
    names = [".a[1].0123abcd.png", ".a[1].ffffffff.png", ".b.0123abcd.png", ".a[1].0123abcd.jpg", ".a[1].draft.png"]
    for name in names:
        (tmp_path / name).touch()
        if "ffffffff" not in name:  # still being written
            os.utime(tmp_path / name, (time.time() - 700,) * 2)
    with files.atomic_path(tmp_path / "a[1].png") as part:
        part.touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[1:], "a[1].png"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(S2FError, match="file.*cannot be written"), files.claimed(tmp_path / "file" / "run"):
        pass


def test_a_result_table_is_read_as_numbers_and_text(tmp_path):
    rows = [{"photo": "229_3", "a b": 0.5, "n": 3, "empty": "", "nan": float("nan")}]
    path = write_text(tmp_path / "t.csv", csv_text(rows))
    (row,) = read_csv(path)
    assert row["photo"] == "229_3" and (row["a b"], row["n"]) == (0.5, 3.0)
    assert math.isnan(row["empty"]) and math.isnan(row["nan"])


def test_results_are_found_beside_the_package():
    assert (results_dir() / "drawings" / "variants.csv").is_file()
