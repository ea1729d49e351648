"""A case replays, and whatever was changed is found."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from case_files import change, forge, members, shifted, write
from PIL import Image
from stand_in import drawing

from s2flib import case as cases
from s2flib import images, weights
from s2flib.case import making
from s2flib.case.statement import statement
from s2flib.datasets import SynthFaces
from s2flib.errors import DataError, S2FError
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


def test_lineup_results_of_a_forged_case(case):
    def better(data, blobs):
        data[3]["result"]["top"][0]["similarity"] += 0.3

    forge(case, better)
    assert ["similarities" in p for p in cases.verify_case(case).problems] == [True]

    def wrong_types(data, blobs):
        data[3]["result"] = {"top": "a", "shuffled": 3}

    forge(case, wrong_types)
    assert len(cases.verify_case(case).problems) == 4 and cases.summary(cases.read_case(case))
