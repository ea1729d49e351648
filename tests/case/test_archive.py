"""A stranger's zip does no harm; two writers, a kill or a full disk leave the old case."""

import json
import os
import signal
import subprocess
import sys
import zipfile

import pytest
from case_files import change, forge, members, write

from s2flib import case as cases
from s2flib.case import archive
from s2flib.errors import DataError, ImageError, S2FError


def huge(path):
    """A zip bomb: 60 MB in 60 kB."""
    write(path, members(path) | {"faces/04.png": bytes(60_000_000)})


def doubled(path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("faces/01.png", b"x")


def encrypted(path):
    data = path.read_bytes()
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(mark) + offset
        data = data[:at] + bytes([data[at] | 1]) + data[at + 1 :]
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage, why",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-200]), "truncated, damaged or no case"),
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "truncated, damaged or no case"),
        (lambda p: p.write_bytes(b""), "truncated, damaged or no case"),
        (lambda p: p.write_text("a text"), "truncated, damaged or no case"),
        (lambda p: p.unlink(), "does not exist"),
        (huge, "60,000,000 bytes, too many"),
        (lambda p: write(p, members(p) | {"log/0004.json": b" " * 2_000_000}), "2,000,000 bytes, too many"),
        (
            lambda p: write(p, members(p) | {f"faces/{i:02d}.png": bytes(1 << 25) for i in range(10, 20)}),
            "more than 256 MB",
        ),
        (lambda p: write(p, {f"edits/{i:04d}_01.png": b"" for i in range(1001)}), "1,001 members"),
        (lambda p: write(p, members(p) | {"../../evil.png": b"x"}), r"'../../evil.png'.*no case has"),
        (lambda p: write(p, members(p) | {"/etc/passwd": b"x"}), r"'/etc/passwd'.*no case has"),
        (lambda p: write(p, members(p) | {"faces/..\\x.png": b"x"}), "no case has"),
        (doubled, "a member twice"),
        (encrypted, "encrypted"),
        (lambda p: change(p, case=None), "has no case.json"),
        (lambda p: write(p, {"case.json": members(p)["case.json"]} | {"case.json": b"{}"}), "its fields"),
        (lambda p: change(p, log_0001=b"[" * 100_000), "no log entry"),
        (lambda p: change(p, log_0001=b'{"index": NaN}'), "NaN in it"),
        (lambda p: change(p, log_0001=b"\xff\xfe"), "no log entry"),
        (lambda p: change(p, log_0001=members(p)["log/0002.json"]), "its index is wrong"),
        (lambda p: _field(p, "action", "new"), "its action is wrong"),
        (lambda p: _field(p, "time", "noon"), "its time is none"),
        (lambda p: _field(p, "who", 7), "its who is wrong"),
        (lambda p: _field(p, "data", []), "its data is wrong"),
        (lambda p: _field(p, "members", {"faces/01.png": "abc"}), "its members is wrong"),
        (lambda p: _field(p, "members", {"../x": "0" * 64}), "lists members that no case has"),
        (lambda p: _field(p, "hash", "0" * 63), "its hash is wrong"),
        (lambda p: change(p, case=members(p)["case.json"].replace(b'"version": 1', b'"version": 2')), "s2fcase 2"),
    ],
)
def test_a_strangers_zip(case, damage, why):
    """Each kind of harm has its own sentence, and nothing is written anywhere."""
    damage(case)
    before = sorted(case.parent.rglob("*"))
    for call in (cases.read_case, cases.verify_case):
        with pytest.raises(DataError, match=why) as error:
            call(case)
        assert case.name in str(error.value) and "\n" not in str(error.value)
    assert sorted(case.parent.rglob("*")) == before


def _field(path, key, value):
    entry = json.loads(members(path)["log/0001.json"]) | {key: value}
    change(path, log_0001=json.dumps(entry).encode())


@pytest.mark.parametrize(
    "edit, why",
    [
        (lambda data: data[0].pop("n"), "'n'"),
        (lambda data: data[0].update(seed=True), "'seed'"),
        (lambda data: data[0].update(preset="huge"), "preset 'huge' is unknown"),
        (lambda data: data[0].update(n=10**9), "between 1 and 64"),
        (lambda data: data[0].update(weights=3), "'weights'"),
        (lambda data: data[0].update(drawing=3), "'drawing'"),
        (lambda data: data[2].update(instruction=3), "'instruction'"),
        (lambda data: data[2]["options"].update(guidance="much"), "'guidance'"),
        (lambda data: data[2]["options"].update(steps=10**9), "steps must be"),
        (lambda data: data[3].update(gallery=None), "'gallery'"),
        (lambda data: data[3]["gallery"].update(kind=3), "'kind'"),
        (lambda data: data[3]["gallery"].update(name="exam"), "exam"),
    ],
)
def test_a_log_with_right_hashes_and_wrong_fields(case, edit, why):
    forge(case, lambda data, blobs: edit(data))
    with pytest.raises(S2FError, match=why):
        cases.verify_case(case)
    assert cases.summary(cases.read_case(case))  # it can be looked at all the same


def test_pictures_of_a_stranger_are_read_as_any_others(case):
    def bomb(data, blobs):
        blobs["drawing.png"] = blobs["drawing.png"][:60]

    forge(case, bomb)
    with pytest.raises(ImageError, match="page.png"):
        cases.verify_case(case)


def test_two_writers(case):
    before = case.read_bytes()
    with archive.locked(case):
        for step in (
            lambda: cases.choose_face(case, 1, "x"),
            lambda: cases.edit_face(case, "add glasses"),
            lambda: cases.run_lineup(case, limit=24),
        ):
            with pytest.raises(S2FError, match="in use by another s2f process"):
                step()
        assert cases.verify_case(case, lineups=False).verified  # reading is allowed
    assert case.read_bytes() == before
    read = cases.load_case(case)
    cases.choose_face(case, 1, "first")
    with archive.locked(case), pytest.raises(S2FError, match="changed by another program"):
        archive.add(case, read, "choose", {}, {})
    assert len(cases.load_case(case).entries) == 5


def test_a_kill_leaves_the_old_case(case):
    """Killed when everything is written but the rename: the old case stays, and work goes on."""
    before = case.read_bytes()
    code = (
        "import os, signal\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from s2flib.case import choose_face\n"
        f"choose_face({str(case)!r}, 1, 'x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert case.read_bytes() == before
    cases.choose_face(case, 1, "again")
    assert len(cases.load_case(case).entries) == 5


def test_an_interrupted_or_failed_write_leaves_the_old_case(case, monkeypatch):
    before = case.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(S2FError, match="disk is full"):
        cases.choose_face(case, 1, "x")
    assert case.read_bytes() == before and {p.name for p in case.parent.iterdir()} == {case.name}
