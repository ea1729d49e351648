"""Rendered people: the same by (seed, number), resumable, never of a val or test split."""

import json

import numpy as np
import pytest

from s2flib.datasets import open_dataset
from s2flib.datasets.live import LivePeople, Pool, identity_number, pack_people, render_people
from s2flib.errors import DataError, S2FError
from s2flib.synthfaces.causes import causes
from s2flib.synthfaces.identity import identity_split
from s2flib.synthfaces.render import render_shot


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_people(tmp_path_factory.mktemp("live") / "people", 4, size=32, workers=2)


def test_people_are_what_the_renderer_draws(folder):
    people = LivePeople(folder)
    assert len(people) == people.capacity == 4 and people.size == 32
    for k in range(4):
        picture, _, _ = render_shot(people.seed, identity_number(k), 0, 32)
        photo = people.photos[k].transpose(1, 2, 0).astype(float)
        assert np.abs(photo - picture.rgb).mean() < 8  # WebP
        assert np.array_equal(people.masks[k], picture.labels)
        assert np.array_equal(people.causes[k], causes(people.seed, identity_number(k)))
        assert people.drawings[k].min() < 180 and people.drawings[k].max() == 255


def test_only_train_identities():
    numbers = [identity_number(k) for k in range(50)]
    assert len(set(numbers)) == 50 and numbers == sorted(numbers)
    assert {identity_split(n) for n in numbers} == {"train"}


def test_a_stopped_run_continues_to_the_same_people(folder, tmp_path):
    def stop(rendered, left):
        for k, person in enumerate(rendered):
            if k == 2:
                raise KeyboardInterrupt
            yield person

    with pytest.raises(KeyboardInterrupt):
        render_people(tmp_path, 4, size=32, progress=stop)
    part = LivePeople(tmp_path)
    assert len(part) == 2
    render_people(tmp_path, 4, size=32)
    assert len(part) == 4, "a reader sees the new people"
    whole = LivePeople(folder)
    for name in ("photos", "masks", "drawings", "causes"):
        assert np.array_equal(getattr(part, name), getattr(whole, name))


def test_other_recipes_and_damage_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="seed differ"):
        render_people(folder, 4, size=32, seed=5)
    with pytest.raises(DataError, match="render-people"):
        LivePeople(tmp_path)
    for name in ("live.json", "masks.npy"):
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes() if file.name != name else b"broken")
        with pytest.raises(DataError):
            LivePeople(copy)
    short = tmp_path / "short"
    short.mkdir()
    for file in folder.iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    np.save(short / "photos.npy", np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(DataError, match="photos.npy is damaged"):
        LivePeople(short)
    for wrong in (dict(people=0), dict(people=1, size=8), dict(people=1, seed=-1), dict(people=1, workers=0)):
        with pytest.raises(S2FError, match="at least one"):
            render_people(tmp_path / "new", **wrong)


def test_a_pool_is_its_folders_in_order(folder, tmp_path):
    shipped = open_dataset("tiny", "train", limit=3)
    packed = LivePeople(pack_people(shipped, tmp_path / "packed"))
    assert len(packed) == 3 and json.loads((tmp_path / "packed" / "live.json").read_text())["seed"] == 1
    assert np.array_equal(packed.photos, shipped.arrays()["photos"])
    assert np.array_equal(packed.causes[1], causes(1, 0, 1))  # photo 000000_1
    with pytest.raises(DataError, match="different sizes"):
        Pool([folder, tmp_path / "packed"])
    people = LivePeople(folder)
    pool = Pool([folder, folder])
    assert len(pool) == 8
    photos, masks, drawings, known = pool.batch(np.array([5, 0, 7, 3]))
    for got, stored in (
        (photos, people.photos),
        (masks, people.masks),
        (drawings, people.drawings),
        (known, people.causes),
    ):
        assert np.array_equal(got, stored[[1, 0, 3, 3]])
