"""A few cases of each kind in `make test`, and the proof that each check can fail. `make fuzz` tries thousands."""

import shutil
import urllib.request

import numpy as np
import pytest

pytest.importorskip("resource")  # not on Windows

from s2flib import images
from s2flib.datasets import faces
from s2flib.errors import S2FError
from s2flib.weights import download as downloading
from s2flib.weights import published

from . import downloads, folders, kills, pictures, weights
from .runner import run, tried

FEW = {pictures: 300, weights: 60, folders: 25, downloads: 20, kills: 4}


def _name(kind):
    return kind.__name__.rpartition(".")[2]


@pytest.mark.parametrize("kind", FEW, ids=_name)
def test_the_promise_is_kept(kind):
    wrong = [sentence for seed in range(FEW[kind]) if (sentence := tried(kind.check, seed))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", FEW, ids=_name)
def test_a_case_depends_on_its_seed_alone(kind):
    def described() -> list[str]:
        cases = [kind.case(seed) for seed in range(20)]
        return [case[1].what if isinstance(case, tuple) else f"{case.what} {vars(case)}" for case in cases]

    assert described() == described() and len(set(described())) > 1


def _until_wrong(check, seeds=range(60)) -> str:
    return next((sentence for seed in seeds if (sentence := tried(check, seed))), "")


# --- a broken promise is noticed


def _raises(error):
    def reader(*args, **kwargs):
        raise error

    return reader


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        (_raises(ValueError("no")), "ValueError instead of an S2FError"),
        (_raises(S2FError("two\nlines.")), "is not one line"),
        (_raises(S2FError("it is damaged.")), "does not name"),
        (lambda path: np.full((20, 20, 3), np.nan), "no uint8 array"),
        (lambda path: np.zeros((20, 20), np.uint8), "the shape"),
        (lambda path: np.zeros((20, 20, 3), np.uint8), "it was read"),
    ],
)
def test_a_reader_of_pictures_that_breaks_the_promise(reader, told, monkeypatch):
    monkeypatch.setattr(images, "load_image", reader)
    assert told in _until_wrong(pictures.check)


def test_a_loader_of_weights_that_takes_anything(monkeypatch):
    monkeypatch.setattr(published, "check_values", lambda *args, **kwargs: None)
    assert "weights" in _until_wrong(weights.check, range(150))


def test_a_data_set_whose_sums_are_not_checked(monkeypatch):
    real = faces.read_webp
    monkeypatch.setattr(faces, "read_webp", lambda *args: real(*args[:4]))
    copied = [seed for seed in range(3000) if "mask_sha256 of row 0: copied" in folders.case(seed)[1].what]
    assert "nobody noticed" in _until_wrong(folders.check, copied[:2])


def test_a_naive_download(monkeypatch):
    def naive(urls, path, sha256, wait):
        with urllib.request.urlopen(urls[0]) as response, open(path, "wb") as file:
            shutil.copyfileobj(response, file)
        return path

    monkeypatch.setattr(downloading, "download", naive)
    assert "download" in _until_wrong(downloads.check)


def test_a_file_that_is_written_in_place(monkeypatch):
    monkeypatch.setattr(kills, "case", lambda seed: kills.Kill("careless", 0.6, 0.0))
    assert "notes.json is half-written" in tried(kills.check, 0)


def test_a_hang_and_a_crash_are_wrong_cases():
    """The long run goes on in another process."""
    results = {result.seed: result.sentence for result in run([("naps", seed) for seed in range(3)], jobs=1)}
    assert "took more than" in results[0] and "died with exit code" in results[1] and results[2] is None
