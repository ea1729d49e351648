"""Training of the matcher: another shot than the drawing's, learns, resumes to the same numbers, refuses."""

import numpy as np
import pytest
import torch
from fake_faces import Faces

from s2flib.datasets import open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.matcher import SIDE, SketchMatcher, drawing_crop, load_matcher
from s2flib.training import matcher
from s2flib.training.matcher import DrawnPeople, MatcherConfig, MatcherTrainer, jittered, other_photos, train_matcher
from s2flib.training.trainer import make_accelerator
from s2flib.weights import safe_load

SMALL = dict(batch=6, limit=12, val_limit=8, cpu=True, log_every=2, save_every=1e9)


def test_the_right_photo_is_another_shot():
    torch.manual_seed(0)
    person = torch.tensor([0, 0, 0, 1, 2, 2])
    drawn = torch.tensor([1, 3, 5])
    seen = set()
    for _ in range(200):
        picked = other_photos(person, drawn)
        assert person[picked].tolist() == [0, 1, 2]
        assert picked[0] != 1 and picked[1] == 3 and picked[2] == 4
        seen.add(int(picked[0]))
    assert seen == {0, 2}
    everyone = torch.stack([other_photos(person, torch.tensor([3])) for _ in range(200)])
    assert set(everyone[:, 0].tolist()) == {0, 1, 2} and set(everyone[:, 2].tolist()) == {4, 5}


def test_jittered_without_jitter_is_the_crop(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *s, **k: torch.full(s, 0.5))  # the middle of every range; not mirrored
    x = torch.linspace(0, 1, 2 * 64 * 64).view(2, 1, 64, 64)
    torch.testing.assert_close(jittered(x, 96), drawing_crop(x))


def test_jittered_mirrors_half():
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 32, 32)
    x[..., 16:] = 1
    y = jittered(x, 24)
    mirrored = (y[..., :12].mean((1, 2, 3)) > y[..., 12:].mean((1, 2, 3))).float().mean()
    assert y.shape == (200, 1, 24, 24) and 0.35 < mirrored < 0.65 and 0.5 < SIDE < 1


def test_people_of_two_sources_are_different_people():
    def some(person):
        n = len(person)
        pictures = torch.zeros(n, 4, 4, dtype=torch.uint8)
        return DrawnPeople(pictures[:, None].expand(n, 3, 4, 4), pictures, pictures, torch.tensor(person))

    both = some([0, 0, 1]).joined(some([0, 1]))
    assert both.person.tolist() == [0, 0, 1, 2, 3] and len(both.photos) == len(both) == 5


def test_it_learns_and_resumes_exactly(tmp_path):
    whole = train_matcher(MatcherConfig(out=str(tmp_path / "whole"), steps=4, **SMALL))
    assert isinstance(load_matcher(whole), SketchMatcher)
    tensors, metadata = safe_load(whole, with_metadata=True)
    assert metadata["kind"] == "sketch-matcher" and metadata["people"] == "3"
    assert 0 <= float(metadata["val_rank_1_pencil"]) <= 1

    first, second = (MatcherTrainer(MatcherConfig(out="", steps=4, **SMALL), make_accelerator(cpu=True)) for _ in "ab")
    for _ in range(2):
        first.step()
    second.load(first.state())
    for _ in range(2):
        second.step()
    for name, value in second.average.module.state_dict().items():
        torch.testing.assert_close(value.half() if value.is_floating_point() else value, tensors[name], msg=name)
    assert second.picture().ndim == 3


def test_it_memorises_three_people():
    trainer = MatcherTrainer(MatcherConfig(out="", steps=60, **SMALL | dict(batch=12)), make_accelerator(cpu=True))
    first = np.mean([float(trainer.step()["infonce"]) for _ in range(3)])
    for _ in range(10):
        trainer.step()
    last = np.mean([float(trainer.step()["infonce"]) for _ in range(3)])
    assert last < 0.8 * first


def test_val_people_never_train(monkeypatch):
    opened = []
    monkeypatch.setattr(matcher, "open_dataset", lambda *a, **k: opened.append(a[1]) or open_dataset(*a, **k))
    trainer = MatcherTrainer(MatcherConfig(out="", steps=1, **SMALL), make_accelerator(cpu=True))
    assert opened == ["train", "val"] and len(trainer.people) == 12
    train = set(open_dataset("tiny", "train", limit=12).identities.tolist())
    assert not train & set(trainer.val_people[0].tolist()) and trainer.judge.label == "SynthFaceID"


def test_refusals():
    with pytest.raises(S2FError, match="preset colab"):
        MatcherTrainer(MatcherConfig(out="", steps=1, preset="colab"), make_accelerator(cpu=True))
    with pytest.raises(S2FError, match="only SynthFaces"):
        matcher.read_split(Faces(2, 2))
