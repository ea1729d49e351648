"""s2flib.case: a case replays; whatever was changed is found; a stranger's zip does no harm."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from case_files import case_fixture, case_weights_fixture, change, forge, members, shifted, whole_case_fixture, write  # noqa: F401  (fixtures)
from PIL import Image
from stand_in import drawing, stand_in_data_fixture  # noqa: F401  (fixtures)

from s2flib import case as cases
from s2flib import images, weights
from s2flib.case import archive, making
from s2flib.case.statement import statement
from s2flib.datasets import SynthFaces
from s2flib.errors import DataError, ImageError, S2FError
from s2flib.files import data_dir, sha256_of
from s2flib.judges.load import identity_judge
from s2flib.presets import TINY
from s2flib.psp import PSP


def problems(path, **options):
    return cases.verify_case(path, lineups=False, **options).problems


def test_a_case_replays(case):
    found = cases.verify_case(case)
    assert found.verified and found.lineups == 1 and not found.notes
    names = ["faces/01.png", "faces/02.png", "faces/03.png", "edits/0002_01.png"]
    assert [check.name for check in found.checks] == names
    assert all(check.identical and check.largest == 0 for check in found.checks)


def test_what_a_case_records(case, case_weights):
    read = cases.load_case(case)
    assert [entry.action for entry in read.entries] == ["new", "choose", "edit", "lineup"]
    first = read.first
    assert first["preset"] == "tiny" and first["n"] == 3 and first["seed"] == 5 and first["label"] == TINY.label
    assert first["weights"]["encoder"]["sha256"] == sha256_of(case_weights / "tiny-psp.safetensors")
    assert first["weights"]["generator"]["sha256"] == sha256_of(case_weights / "tiny-stylegan2.safetensors")
    assert first["statement"] == statement(TINY) and "Similarity is not identification" in first["statement"]
    assert "data/weights/tiny-psp.md" in first["statement"]
    assert first["versions"]["torch"] and first["hardware"]["cores"] and read.entries[0].who == "the artist"
    chosen, edited, compared = (entry.data for entry in read.entries[1:])
    assert chosen == {
        "face": "faces/02.png",
        "reason": "the narrow chin",
        "rejected": {"faces/01.png": "too old", "faces/03.png": ""},
    }
    assert edited["source"] == "faces/02.png" and edited["options"]["seed"] == 1
    assert edited["settings"]["steps"] == 2 and "changes below" in edited["settings"]["guidance"]
    assert edited["weights"]["pipeline"]["sha256"] and compared["weights"]["judge"]["file"] == "dlib-resnet.safetensors"
    assert compared["probe"] == "edits/0002_01.png" and compared["gallery"]["people"] == 6
    result = compared["result"]
    assert result["chance"] == {"rank1": 1 / 6, "rank10": 1.0} and result["photo_against_photo"]["n"] == 6
    assert result["shuffled"]["n"] == making.CONTROLS == len(result["shuffled"]["best_similarities"])
    best = np.array(result["shuffled"]["best_similarities"])
    assert result["shuffled"]["as_high_as_the_probe"] == (best >= result["top"][0]["similarity"]).sum()


def test_pictures_say_what_they_are(case):
    read = cases.load_case(case)
    for name in ("faces/01.png", "faces/02.png", "edits/0002_01.png"):
        text = images.read_metadata(io.BytesIO(read.members[name]))
        assert text["synthetic"] == "true" and text["preset"] == "tiny"
    assert json.loads(text["source_metadata"])["face"] == "2"  # the edit knows the face it was made from


def test_the_faces_are_those_of_generate(case, tmp_path):
    from s2flib.generate import generate

    read = cases.load_case(case)
    (tmp_path / "page.png").write_bytes(read.members["drawing.png"])
    (made,) = generate([tmp_path / "page.png"], tmp_path / "out", n=3, seed=5)
    for k, path in enumerate(made.faces, start=1):
        ours = making.picture(read.members[f"faces/{k:02d}.png"], "face")
        assert np.array_equal(ours, np.asarray(Image.open(path)))


def test_the_lineup_is_right(case):
    """Against cosines of the judge's embeddings, one by one."""
    read, judge = cases.load_case(case), identity_judge("tiny")
    test = SynthFaces(data_dir() / "synthfaces", "test", TINY.size, 24)
    first = [i for i, name in enumerate(test.names) if name.endswith("_0")]

    def embed(photo):
        with torch.no_grad():
            return judge.embed(photo[None])[0].double().numpy()

    probe = embed(images.as_float(making.picture(read.members["edits/0002_01.png"], "probe")))
    expected = {test.names[i]: float(embed(test[i]["photo"]) @ probe) for i in first}
    top = read.entries[3].data["result"]["top"]
    assert [hit["photo"] for hit in top] == sorted(expected, key=lambda name: -expected[name])
    for hit in top:
        assert hit["similarity"] == pytest.approx(expected[hit["photo"]], abs=1e-4)


def test_a_step_only_adds_members(case, tmp_path):
    before = members(case)
    cases.choose_face(case, 1, "on second thought")
    cases.edit_face(case, "add glasses", steps=2)
    after = members(case)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"log/0004.json", "log/0005.json", "edits/0005_01.png"}
    assert cases.load_case(case).entries[-1].data["source"] == "faces/01.png"  # the choice made last
    assert cases.verify_case(case, lineups=False).verified


@pytest.mark.parametrize(
    "damage, why",
    [
        (lambda p: change(p, faces_02=shifted(members(p)["faces/02.png"], 1)), ["faces/02.png was changed"]),
        (lambda p: change(p, faces_03=None), ["faces/03.png is missing"]),
        (lambda p: change(p, drawing=None), ["drawing.png is missing"]),
        (lambda p: change(p, log_0002=None), ["log/0002.json is missing"]),
        (lambda p: write(p, members(p) | {"edits/0009_01.png": b"x"}), ["edits/0009_01.png is in no log entry"]),
        (
            lambda p: change(p, log_0001=members(p)["log/0001.json"].replace(b"narrow", b"square")),
            ["log/0001.json was changed"],
        ),
        (
            lambda p: change(p, case=members(p)["case.json"].replace(b'"seed": 5', b'"seed": 6')),
            ["case.json was changed"],
        ),
        (lambda p: change(p, faces_02=b"no picture"), ["faces/02.png was changed", "faces/02.png is not an image"]),
    ],
)
def test_a_change_is_found(case, damage, why):
    damage(case)
    found = problems(case)
    for words in why:
        assert any(words in problem for problem in found), found
    with pytest.raises(DataError, match="was changed"):  # no step is added to it
        cases.choose_face(case, 1, "x")


def test_a_large_change_of_a_picture_is_named_twice(case):
    change(case, faces_02=shifted(members(case)["faces/02.png"], 90))
    found = [problem.split(" (")[0] for problem in problems(case)]
    assert found[:2] == [
        "faces/02.png was changed: its hash does not match",
        "faces/02.png is not what its record makes",
    ]


def test_a_forged_chain_does_not_replay(case):
    def other_seed(data, blobs):
        data[0]["seed"] = 6

    head = cases.read_case(case).head
    forge(case, other_seed)
    assert not cases.read_case(case).problems()  # every hash is right
    found = problems(case)
    assert any("faces/02.png is not what its record makes" in p for p in found) and len(found) == 2  # 2 sampled faces
    (named,) = [p for p in problems(case, head=head) if p not in found]
    assert "steps are missing or new" in named


def test_cut_off_steps_need_the_noted_hash(case):
    head = cases.read_case(case).head
    contents = members(case)
    del contents["log/0003.json"]
    write(case, contents)
    assert not problems(case)
    assert "steps are missing" in problems(case, head=head)[0]
    assert not problems(case, head=cases.read_case(case).head)


@pytest.mark.parametrize("grey, everywhere, fine", [(8, False, True), (9, False, False), (1, True, False)])
def test_tolerance(case, grey, everywhere, fine):
    """One pixel may differ by 8 grey levels, all of them by half a level on average."""

    def paint(data, blobs):
        blobs["faces/03.png"] = shifted(blobs["faces/03.png"], grey, everywhere)

    forge(case, paint)
    found = cases.verify_case(case, lineups=False)
    (check,) = [c for c in found.checks if c.name == "faces/03.png"]
    assert check.largest == grey and not check.identical and found.verified is fine
    assert cases.verify_case(case, lineups=False, max_difference=20, mean_difference=2).verified


def test_changed_weights(case, case_weights, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(case_weights, folder, symlinks=True)
    model = weights.load_psp("tiny")
    model.latent_avg += 0.01
    weights.save_psp(folder / "tiny-psp.safetensors", model, "tiny", overwrite=True)
    monkeypatch.setenv("S2F_WEIGHTS", str(folder))
    found = cases.verify_case(case)
    assert [p.split(" (")[0] for p in found.problems] == [
        "step 0 was made with another encoder",
        "step 3 was made with another encoder",
    ]
    with pytest.raises(S2FError, match="another encoder: pass --weights"):
        cases.run_lineup(case, limit=24)


def test_own_weights(case_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(case_weights))
    torch.manual_seed(1)
    model = PSP.from_preset("tiny")
    tensors = model.decoder.state_dict() | {"latent_avg": model.latent_avg[0]}
    own = tmp_path / "own.safetensors"
    generator = tmp_path / "generator.safetensors"
    weights.save_safetensors(generator, tensors, {"kind": "stylegan2", "preset": "tiny"})
    weights.save_psp(own, model, "tiny")
    Image.fromarray(drawing()).save(tmp_path / "page.png")
    path = tmp_path / "own.s2fcase"
    cases.new_case(tmp_path / "page.png", path, n=1, weights=own, generator=generator)
    assert str(tmp_path) not in members(path)["case.json"].decode()  # no path of the machine
    with pytest.raises(S2FError, match="other weights than the preset's"):
        cases.verify_case(path)
    assert cases.verify_case(path, own, generator).verified


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


def test_lineup_results_of_a_forged_case(case):
    def better(data, blobs):
        data[3]["result"]["top"][0]["similarity"] += 0.3

    forge(case, better)
    assert ["similarities" in p for p in cases.verify_case(case).problems] == [True]

    def wrong_types(data, blobs):
        data[3]["result"] = {"top": "a", "shuffled": 3}

    forge(case, wrong_types)
    assert len(cases.verify_case(case).problems) == 4 and cases.summary(cases.read_case(case))


def test_any_text_and_any_name(case, tmp_path, page):
    """Bytes that are no UTF-8 in names and texts, and escape sequences in a stranger's log."""
    odd = tmp_path / os.fsdecode(b"na\xffme.png")
    shutil.copy(page, odd)
    path = tmp_path / "b.s2fcase"
    cases.new_case(odd, path, n=1, who=os.fsdecode(b"\xfe"))
    done = cases.choose_face(path, 1, "schön " + os.fsdecode(b"\xff"))
    assert cases.verify_case(path).verified and done.entries[1].data["reason"] == "schön ?"
    cases.export_case(path, tmp_path / "out")

    def escape(data, blobs):
        data[2]["source"] = "\x1b[31mred"
        data[0]["drawing_name"] = data[1]["reason"] = "\x1b[2J"

    forge(case, escape)
    text = "".join(problems(case)) + cases.summary(cases.read_case(case))
    assert "\x1b" not in text and "which is not in the case" in text


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


def test_new_refuses(case, tmp_path, page):
    for arguments, why in (
        ((page, case), "never overwritten"),
        ((page, tmp_path / "b.zip"), "end in .s2fcase"),
        ((tmp_path / "no.png", tmp_path / "b.s2fcase"), "no.png"),
        ((page, tmp_path / "b.s2fcase", "tiny", 0), "between 1 and 64"),
        ((page, tmp_path / "b.s2fcase", "tiny", 1, -1), "seed"),
        ((page, tmp_path / "b.s2fcase", "huge"), "unknown preset"),
        ((page, tmp_path / "b.s2fcase", "tiny", 1, 0, tmp_path / "no.safetensors"), "no.safetensors"),
    ):
        with pytest.raises(S2FError, match=why):
            cases.new_case(*arguments)
    Image.new("RGB", (200, 200), "white").save(tmp_path / "blank.png")
    with pytest.raises(ImageError, match="no drawing"):
        cases.new_case(tmp_path / "blank.png", tmp_path / "b.s2fcase")
    assert not (tmp_path / "b.s2fcase").exists() and not list(tmp_path.glob(".*"))


@pytest.fixture
def page(tmp_path):
    Image.fromarray(drawing()).save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_steps_refuse(case, page, tmp_path):
    fresh = tmp_path / "fresh.s2fcase"
    cases.new_case(page, fresh, n=1)
    for step in (lambda: cases.edit_face(fresh, "add glasses"), lambda: cases.run_lineup(fresh)):
        with pytest.raises(S2FError, match="no face of .* has been chosen"):
            step()
    before = case.read_bytes()
    for step, why in (
        (lambda: cases.choose_face(case, 4, "x"), "no face 4: choose one from 1 to 3"),
        (lambda: cases.choose_face(case, 0, "x"), "no face 0"),
        (lambda: cases.choose_face(case, 1, "  "), "needs a reason"),
        (lambda: cases.choose_face(case, 1, "x" * 3000), "3,000 characters"),
        (lambda: cases.choose_face(case, 1, "x", {1: "y"}), "both chosen and rejected"),
        (lambda: cases.choose_face(case, 1, "x", {7: "y"}), "no face 7"),
        (lambda: cases.edit_face(case, ""), "empty"),
        (lambda: cases.edit_face(case, "make it so", seed=-1), "seed"),
        (lambda: cases.run_lineup(case, split="exam"), "exam"),
        (lambda: cases.run_lineup(case, tmp_path, "test"), "one gallery"),
        (lambda: cases.run_lineup(case, tmp_path / "no"), "not a folder"),
        (lambda: cases.run_lineup(case, limit=1), "fewer than two people"),
    ):
        with pytest.raises(S2FError, match=why):
            step()
    assert case.read_bytes() == before


def test_lineup_in_a_folder(case_weights, page, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(case_weights))
    monkeypatch.setattr(making, "CONTROLS", 3)
    case = tmp_path / "b.s2fcase"
    cases.new_case(page, case, n=1)
    cases.choose_face(case, 1, "the only one")
    test = SynthFaces(data_dir() / "synthfaces", "test", 128)
    folder = tmp_path / "register"
    for person in range(2):  # two people with two photos each, two with one, and a picture without a face
        for shot in range(2):
            (folder / f"person {person}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(test.read(4 * person + shot)[0]).save(folder / f"person {person}" / f"{shot}.png")
    for person in (2, 3):
        Image.fromarray(test.read(4 * person)[0]).save(folder / f"{person}.png")
    Image.new("RGB", (200, 200), "grey").save(folder / "wall.png")
    done = cases.run_lineup(case, folder)
    data = done.entries[-1].data
    assert data["gallery"]["people"] == 4 and list(data["gallery"]["left_out"]) == ["wall.png"]
    assert {hit["photo"] for hit in data["result"]["top"]} == {"person 0/0.png", "person 1/0.png", "2.png", "3.png"}
    assert data["result"]["photo_against_photo"]["n"] == 2 and data["result"]["chance"]["rank1"] == 0.25
    assert str(tmp_path) not in json.dumps(data)
    with pytest.raises(S2FError, match="pass it with --gallery"):
        cases.verify_case(case)
    assert cases.verify_case(case, gallery=folder).verified
    (folder / "3.png").unlink()
    assert "other photos" in cases.verify_case(case, gallery=folder).problems[0]
    assert "photos left out" in cases.summary(done)


def test_summary(case):
    text = cases.summary(cases.read_case(case))
    for words in (
        "by the artist",
        "3 faces of page.png (preset tiny, seed 5)",
        "faces/02.png: the narrow chin",
        "rejected faces/01.png: too old",
        "make the hair blond (seed 1) -> edits/0002_01.png",
        "against 6 people (split test), dlib ResNet",
        "shuffled control",
        "photo against photo: rank-1",
        "never evidence",
        cases.read_case(case).head,
    ):
        assert words in " ".join(text.split()), (words, text)
    change(case, faces_02=None)
    assert "CHANGED: faces/02.png is missing" in cases.summary(cases.read_case(case))


def test_export(case, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)  # not installed
    files, how = cases.export_case(case, tmp_path / "out")
    assert {p.name for p in files} == {
        "drawing.png", "faces_01.png", "faces_02.png", "faces_03.png", "edits_0002_01.png", "log.json", "case.txt",
    }  # fmt: skip
    assert (tmp_path / "out" / "faces_01.png").read_bytes() == members(case)["faces/01.png"] and "PNG text only" in how
    assert len(json.loads((tmp_path / "out" / "log.json").read_text())) == 4
    with pytest.raises(S2FError, match="exists already"):
        cases.export_case(case, tmp_path / "out")
    cases.export_case(case, tmp_path / "out", overwrite=True)
    change(case, faces_02=None)
    with pytest.raises(DataError, match="was changed"):
        cases.export_case(case, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def stand_in_c2pa(fail=False):
    """A module with the part of c2pa-python's interface that is used; the signature is a text behind the PNG."""

    class C2paSignerInfo:
        def __init__(self, alg, sign_cert, private_key, ta_url):
            assert alg == b"es256" and sign_cert == b"certificate" and private_key == b"key" and ta_url is None

    class Signer:
        @classmethod
        def from_info(cls, info):
            assert isinstance(info, C2paSignerInfo)
            return cls()

    class Builder:
        def __init__(self, manifest_json):
            self.manifest = json.loads(manifest_json)

        def sign(self, signer, format, source, dest):
            assert isinstance(signer, Signer) and format == "image/png"
            if fail:
                raise RuntimeError("the certificate is invalid")
            dest.write(source.read() + json.dumps(self.manifest).encode())

    module = types.ModuleType("c2pa")
    module.C2paSignerInfo, module.Signer, module.Builder = C2paSignerInfo, Signer, Builder
    return module


def test_export_signs_where_c2pa_is_installed(case, tmp_path, monkeypatch):
    from s2flib.case import export

    monkeypatch.setattr(export, "_certificate", lambda: (b"certificate", b"key"))
    monkeypatch.setitem(sys.modules, "c2pa", stand_in_c2pa())
    files, how = cases.export_case(case, tmp_path / "out")
    assert "no one trusts it" in how
    before = members(case)
    for path in files:
        signed = path.name.startswith(("faces", "edits"))
        if path.suffix == ".png":
            own = before[path.name.replace("_", "/", 1)]
            assert path.read_bytes().startswith(own) and (len(path.read_bytes()) > len(own)) is signed
    made = json.loads((tmp_path / "out" / "faces_01.png").read_bytes()[len(before["faces/01.png"]) :])
    assert made["title"] == "faces/01.png" and made["format"] == "image/png"
    assert made["assertions"][0]["data"]["actions"][0]["digitalSourceType"].endswith("trainedAlgorithmicMedia")
    monkeypatch.setitem(sys.modules, "c2pa", stand_in_c2pa(fail=True))
    with pytest.raises(S2FError, match="cannot be signed"):
        cases.export_case(case, tmp_path / "again")
    monkeypatch.setitem(sys.modules, "c2pa", types.ModuleType("c2pa"))  # another package of this name
    assert "PNG text only" in cases.export_case(case, tmp_path / "third")[1]
