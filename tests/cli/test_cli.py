"""The command line: help without torch, errors of one sentence with exit code 2, nothing half-written."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from stand_in import drawing, stand_in_data_fixture, stand_in_fixture  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from s2flib import weights
from s2flib.cli import app as cli
from s2flib.cli import train as cli_train
from s2flib.cli.options import seconds
from s2flib.errors import S2FError
from s2flib.psp import PSP
from s2flib.weights import registry

REPO = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "sketch", "generate", "lineup", "train", "sweep", "evaluate", "fetch")


def s2f(*args):
    """Run the command in this process; returns typer's result."""
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def refused(result, *words):
    """Exit code 2 and one sentence on stderr, without a traceback, naming ``words``."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("s2f: "), result.stderr
    assert result.stderr.rstrip().endswith(".") or result.stderr.rstrip().endswith(")"), result.stderr
    for word in words:
        assert str(word).lower() in result.stderr.lower(), result.stderr


def shell(*args, **options):
    return subprocess.run(
        [sys.executable, "-m", "s2flib", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=120,
        **options,
    )


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.png"
    Image.fromarray(drawing()).save(path)
    return path


# --- the command itself -----------------------------------------------------------------------------------------


def test_help_names_every_command():
    result = s2f("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output
        assert s2f(command, "--help").exit_code == 0


def test_help_is_light():
    """No heavy module is imported before a command runs."""
    code = (
        "import sys; from s2flib.cli import app; "
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version():
    from s2flib import __version__

    assert __version__ in s2f("--version").output


def test_usage_errors_exit_with_2():
    for args in (("generate",), ("nonsense",), ("generate", "a.png", "-o", "x", "--n", "many"), ()):
        result = s2f(*args)
        assert result.exit_code == 2 and "Traceback" not in result.output


def test_a_bug_is_one_sentence_and_debug_shows_it(monkeypatch):
    monkeypatch.setattr(registry, "fetch", lambda name: 1 / 0)
    refused(s2f("fetch", "x"), "ZeroDivisionError", "--debug")
    for args in (("--debug", "fetch", "x"), ("fetch", "x", "--debug")):
        assert isinstance(s2f(*args).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["disk is full"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y.png"), ["/x/y.png", "permission denied"]),
        (MemoryError(), ["memory"]),
        (ModuleNotFoundError("No module named 'papermill'", name="papermill"), ["papermill", "make setup"]),
        (S2FError("two\nlines of\ntext."), ["two lines of text"]),
    ],
)
def test_errors_become_sentences(monkeypatch, error, words):
    def fail(name):
        raise error

    monkeypatch.setattr(registry, "fetch", fail)
    refused(s2f("fetch", "x"), *words)


def test_ctrl_c_is_one_sentence_and_130(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "fetch", interrupted)
    result = s2f("fetch", "x")
    assert result.exit_code == 130 and len(result.stderr.strip().splitlines()) == 1


def test_broken_pipe_is_quiet():
    """The reader is gone before the first line is written."""
    done = subprocess.run(
        f"'{sys.executable}' -m s2flib --help | true", shell=True, capture_output=True, text=True, cwd=REPO, timeout=120
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "text, expected",
    [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400), ("2.5", 2.5), (None, None)],
)
def test_lengths_of_time(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1h30x", "-5"])
def test_bad_lengths_of_time(text):
    with pytest.raises(S2FError, match="length of time"):
        seconds(text)


# --- generate ---------------------------------------------------------------------------------------------------


def test_generate(stand_in, page, tmp_path):
    result = s2f("generate", page, "-o", tmp_path / "out", "--n", 2, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "overview.png",
        "page_face_1.png",
        "page_face_2.png",
    ]
    assert "synthetic" in result.output and "overview.png" in result.output
    refused(s2f("generate", page, "-o", tmp_path / "out"), "exists already", "--overwrite")
    assert s2f("generate", page, "-o", tmp_path / "out", "--n", 1, "--overwrite").exit_code == 0


def test_generate_says_what_it_did_to_the_drawing(stand_in, tmp_path):
    Image.fromarray(255 - drawing()).save(tmp_path / "chalk.png")
    result = s2f("generate", tmp_path / "chalk.png", "-o", tmp_path / "out", "--n", 1)
    assert result.exit_code == 0 and "chalk.png: light lines on a dark background: inverted" in result.output


def test_another_presets_checkpoint(stand_in, page, tmp_path):
    model = PSP.from_preset("tiny")
    other = weights.save_safetensors(
        tmp_path / "other.safetensors", model.encoder.state_dict(), {"kind": "psp", "preset": "colab"}
    )
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", other), "preset", "other.safetensors")
    refused(
        s2f("generate", page, "-o", tmp_path / "out", "--weights", stand_in / "weights" / "tiny-stylegan2.safetensors"),
        "checkpoint",
    )
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_pickle_with_code_is_not_run(stand_in, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", tmp_path / "evil.pt"), "evil.pt", "code")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_missing_and_damaged_weights(stand_in, page, tmp_path):
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", tmp_path / "no.safetensors"), "no.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((stand_in / "weights" / "tiny-psp.safetensors").read_bytes()[:5000])
    refused(s2f("generate", page, "-o", tmp_path / "out", "--weights", cut), "cut.safetensors", "damaged")


# --- bad pictures (conftest.BadImages), to generate and sketch alike --------------------------------------------


@pytest.mark.parametrize("command", ["generate", "sketch"])
def test_bad_pictures_are_refused(stand_in, bad_images, tmp_path, command):
    for name, path in bad_images.unreadable.items():
        if (command, name) == ("sketch", "folder"):
            continue  # a folder is what sketch may be given
        refused(s2f(command, path, "-o", tmp_path / name), path.name)
        assert not (tmp_path / name).exists()


def test_unusual_pictures_are_taken(stand_in, bad_images, tmp_path):
    files = list(bad_images.odd.values())
    faces, sketches = tmp_path / "faces", tmp_path / "sketches"
    result = s2f("generate", *files, "-o", faces, "--n", 1)
    assert result.exit_code == 0, result.output
    assert len(list(faces.glob("*_face_1.png"))) == len(files)
    for path in files:
        assert s2f("sketch", path, "-o", sketches / f"{path.stem}-{path.suffix[1:]}.png").exit_code == 0
    found = [Image.open(path) for path in sketches.iterdir()]
    assert len(found) == len(files) and {(image.mode, image.size) for image in found} == {("L", (64, 48))}


def test_no_face_and_two_faces(stand_in, tmp_path):
    astronaut = skimage.data.astronaut()
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "none.png")
    face = astronaut[:300, 80:380]
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(tmp_path / "two.png")
    refused(s2f("generate", tmp_path / "none.png", "-o", tmp_path / "a", "--from-photo", "--align"), "none.png", "face")
    refused(
        s2f("generate", tmp_path / "two.png", "-o", tmp_path / "a", "--from-photo", "--align"), "two.png", "which=0"
    )
    assert not (tmp_path / "a").exists()
    chosen = s2f(
        "generate", tmp_path / "two.png", "-o", tmp_path / "b", "--n", 1, "--from-photo", "--align", "--which", 1
    )
    assert chosen.exit_code == 0, chosen.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk(stand_in, page, tmp_path, monkeypatch):
    """Every byte written to the disk meets ENOSPC, as the kernel reports it."""
    save = Image.Image.save

    def to_full_disk(self, target, *args, **kwargs):
        save(self, "/dev/full", *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", to_full_disk)
    for command in ("generate", "sketch"):
        refused(s2f(command, page, "-o", tmp_path / command), "disk is full")
        assert not any((tmp_path / command).glob("*"))


def test_unwritable_folder(stand_in, page, tmp_path):
    (tmp_path / "file").write_text("mine")
    for command in ("generate", "sketch"):
        refused(s2f(command, page, "-o", tmp_path / "file" / "inside"), "file")
    assert (tmp_path / "file").read_text() == "mine"


# --- sketch -----------------------------------------------------------------------------------------------------


def test_sketch_file_to_file_with_mask(tmp_path):
    from s2flib.sketch import sketch

    photo = skimage.data.astronaut()[:200, 100:340]
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[40:180, 60:200] = 1
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = s2f(
        "sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--masks", tmp_path / "mask.png", "--sigma", 12
    )
    assert result.exit_code == 0, result.output
    image = Image.open(tmp_path / "s.png")
    assert np.array_equal(np.asarray(image), sketch(photo, mask, 12)) and "synthetic" not in image.text
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png"), "exists already")


def test_sketch_of_wrong_mask_and_sigma(tmp_path):
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photo.png")
    Image.new("L", (10, 10)).save(tmp_path / "mask.png")
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--masks", tmp_path / "mask.png"), "mask")
    refused(s2f("sketch", tmp_path / "photo.png", "-o", tmp_path / "s.png", "--sigma", -3), "sigma")
    assert not (tmp_path / "s.png").exists()


def test_sketch_folder_resumes_and_lists_failures(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in "ab":
        Image.fromarray(skimage.data.astronaut()[:64, :64]).save(photos / f"{name}.png")
    (photos / "c.png").write_text("no picture")
    first = s2f("sketch", photos, "-o", out, "--workers", 1)
    assert first.exit_code == 2 and "2 sketched" in first.output and "c.png" in first.stderr
    stamp = (out / "a.png").stat().st_mtime_ns
    second = s2f("sketch", photos, "-o", out, "--workers", 1)
    assert "2 there already" in second.output and (out / "a.png").stat().st_mtime_ns == stamp


def test_sketches_that_would_collide(tmp_path):
    (tmp_path / "x").mkdir()
    for path in (tmp_path / "p.png", tmp_path / "x" / "p.png"):
        Image.fromarray(drawing()).save(path)
    refused(s2f("sketch", tmp_path / "p.png", tmp_path / "x" / "p.png", "-o", tmp_path / "out"), "one by one")
    refused(s2f("sketch", tmp_path / "p.png", tmp_path / "x", "-o", tmp_path / "out"), "folder")
    assert not (tmp_path / "out").exists()


# --- train, sweep -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Config:
    out: str
    preset: str = "tiny"
    steps: int | None = None
    lr: float = 1.0
    ratio: float | None = None
    cpu: bool = False
    resume: bool = False
    widths: tuple[int, ...] = (1, 2)


def test_config_from_options():
    config = cli_train.build_config(
        Config,
        {"out": "x", "steps": 3, "lr": None, "resume": True},
        ["ratio=0.5", "cpu=true", "widths=3,4,5"],
        "encoder",
    )
    assert config == Config("x", steps=3, ratio=0.5, cpu=True, resume=True, widths=(3, 4, 5))
    assert cli_train.build_config(Config, {"out": "x"}, ["ratio=none"], "encoder").ratio is None


@pytest.mark.parametrize(
    "given, more, message",
    [
        ({"lambda4": 1.0}, [], "--lambda4 does not apply"),
        ({}, ["colour=red"], "is not a field"),
        ({}, ["steps"], "is not a field"),
        ({}, ["steps=many"], "'many'"),
    ],
)
def test_options_that_do_not_fit(given, more, message):
    with pytest.raises(S2FError, match=message):
        cli_train.build_config(Config, {"out": "x"} | given, more, "generator")


@pytest.mark.parametrize("what", list(cli_train.TRAININGS))
def test_every_training_has_a_config_the_options_reach(what):
    config_class, run = cli_train.training(what)
    names = {field.name for field in dataclasses.fields(config_class)}
    assert callable(run) and {"out", "seed", "steps"} <= names
    result = s2f("train", "--what", what, "--list")
    assert result.exit_code == 0 and all(name in result.output for name in names)


def test_train_refusals(tmp_path):
    refused(s2f("train", "--what", "dragon", "-o", tmp_path / "out"), "dragon", "encoder")
    refused(s2f("train"), "--out")
    refused(s2f("train", "-o", tmp_path / "out", "--max-time", "soon"), "soon")
    refused(s2f("train", "-o", tmp_path / "out", "--preset", "huge"), "huge")
    refused(s2f("train", "-o", tmp_path / "out", "--set", "lambda5=1"), "lambda5")
    assert not (tmp_path / "out").exists()


def test_unfinished_training_says_how_to_go_on(tmp_path):
    (tmp_path / "run.json").write_text('{"step": 40, "config": {"steps": 100}}')
    assert "--resume" in cli_train.unfinished(tmp_path) and "40 of 100" in cli_train.unfinished(tmp_path)
    (tmp_path / "run.json").write_text('{"step": 100, "config": {"steps": 100}}')
    assert cli_train.unfinished(tmp_path) == "" == cli_train.unfinished(tmp_path / "elsewhere")


def test_sweep_refusals(tmp_path):
    refused(s2f("sweep", "-o", tmp_path / "out", "--lambdas", "0,much"), "much")
    refused(s2f("sweep", "-o", tmp_path / "out", "--lambdas", "1,10"), "0")
    refused(s2f("sweep", "-o", tmp_path / "out", "--set", "nothing=1"), "nothing")
    assert not (tmp_path / "out").exists()


# --- evaluate, lineup, run, fetch -------------------------------------------------------------------------------


def test_evaluate_and_lineup(tmp_path, monkeypatch, stand_in):
    """The real commands on a few real pictures; the encoder is untrained, so only the form is checked."""
    for name in ("dlib-resnet.safetensors", "st-lpips-alex.safetensors"):
        if not (stand_in / "weights" / name).exists():
            (stand_in / "weights" / name).symlink_to(REPO / "data" / "weights" / name)
    if not (stand_in / "synthfaces").exists():
        (stand_in / "synthfaces").symlink_to(REPO / "data" / "synthfaces")
    out = tmp_path / "e"
    result = s2f("evaluate", "-o", out, "--limit", 9, "--batch", 4, "--no-baselines", "--debug")
    assert result.exit_code == 0, (result.output, result.exception)
    assert {"table1.txt", "table1.csv", "table1.png", "run.json", "scores_pSp.npz"} <= {p.name for p in out.iterdir()}
    assert "pSp" in result.output and "n = 9" in result.output and "tiny preset" in result.output
    refused(s2f("evaluate", "-o", out, "--limit", 9), "--overwrite")
    result = s2f("lineup", "-o", tmp_path / "l", "--limit", 9, "--debug")
    assert result.exit_code == 0 and "rank-1" in result.output and "chance" in result.output
    assert {p.name for p in (tmp_path / "l").iterdir()} == {"lineup.txt", "run.json"}


def test_evaluate_refusals(tmp_path, stand_in):
    refused(s2f("evaluate", "-o", tmp_path / "e", "--split", "exam", "--data", REPO / "data" / "synthfaces"), "exam")
    refused(s2f("evaluate", "-o", tmp_path / "e", "--data", tmp_path / "nowhere"), "nowhere")
    refused(s2f("lineup", "-o", tmp_path / "l", "--weights", tmp_path / "no.safetensors"), "no.safetensors")


def test_run_refuses_unknown_notebooks(tmp_path):
    refused(s2f("run", "42_dragons", "-o", tmp_path / "out"), "42_dragons")


def test_fetch_lists_and_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    result = s2f("fetch")
    assert result.exit_code == 0 and all(name in result.output for name in registry.REGISTRY)
    assert "not fetched" in result.output
    refused(s2f("fetch", "dragons"), "dragons")


# --- as people run it -------------------------------------------------------------------------------------------


def test_as_a_process(tmp_path):
    done = shell("sketch", tmp_path / "none.png", "-o", tmp_path / "out.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.png" in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_interrupted_run_leaves_no_half_file(stand_in, page, tmp_path):
    """SIGINT in the middle of many faces: exit code 130, one sentence, and every file there is whole."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "s2flib", "generate", *[page] * 40, "-o", out, "--n", "64"],
        cwd=REPO,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # a shell's background job ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 100
        while not (out / "page_face_2.png").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in stderr and stderr.count("\n") == 1, stderr
    files = list(out.iterdir())
    assert files and not (out / "overview.png").exists()
    for file in files:
        Image.open(file).load()
