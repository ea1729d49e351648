"""Drawings of every kind against the data set's own; embeddings; what is kept in the folder and when it is made."""

import numpy as np
import pytest
import torch
from fake_faces import Cells, Faces

from s2flib.datasets import open_dataset
from s2flib.errors import DataError, S2FError
from s2flib.evaluation import probes
from s2flib.evaluation.lineup import gallery_indices
from s2flib.evaluation.probes import draw, embed_faces, embed_variants, make_probes, remembered
from s2flib.presets import TINY
from s2flib.psp import PSP


@pytest.fixture(scope="module")
def people():
    return open_dataset("tiny", "val", limit=8)  # two people, four photos each


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PSP.from_preset("tiny").eval()


class Judge(Cells):
    """Cells with a parameter, for its device."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def embed(self, x):
        return super().embed(x + 0.1).detach()


def test_pencil_and_lines_are_the_data_sets(people):
    pencil = draw(people, "pencil", 2)
    assert pencil.shape == (2, 3, 128, 128)
    for person in range(2):
        for shot in range(3):
            expected = people[4 * person + shot]["sketch"][0] * 255
            np.testing.assert_allclose(pencil[person, shot], expected, atol=0.01)
    seen = set()
    for hand in ("clean", "sketchy", "composite"):
        lines = draw(people, f"line, {hand}", 2)
        assert lines.shape == (2, 1, 128, 128)
        for person in range(2):
            source = [i for i in range(4 * person, 4 * person + 3) if people.attributes[i]["drawing_hand"] == hand]
            np.testing.assert_array_equal(lines[person, 0], people.drawing(source[0]))
            seen.add(source[0])
    assert len(seen) == 6  # each hand drew another photo, and none the gallery's


def test_a_perfect_memory_is_the_rendered_photo_itself(people):
    truth = draw(people, "recall 0", 1)[0, 0].astype(float)
    rendered = remembered(people.seed, int(people.identities[0]), 0.0, 0, 128).astype(float)
    assert np.abs(rendered - truth).mean() < 1  # grey levels; other processors round differently


def test_a_worse_memory_is_further_away_and_witnesses_differ(people):
    who = int(people.identities[0])
    truth = draw(people, "recall 0", 1)[0, 0].astype(float)
    near, far = (remembered(people.seed, who, e, 0, 128) for e in (0.25, 1.0))
    assert 0 < np.abs(near - truth).mean() < np.abs(far - truth).mean()
    assert (remembered(people.seed, who, 1.0, 1, 128) != far).any()
    np.testing.assert_array_equal(draw(people, "recall 1", 1)[0, 0], far)


def test_half_remembered_has_three_witnesses(people, monkeypatch):
    monkeypatch.setattr(probes, "remembered", lambda seed, who, e, w, size: np.full((size, size), 10 * w, np.uint8))
    drawn = draw(people, "recall 0.5", 1)
    assert drawn.shape == (1, 3, 128, 128) and drawn[0, :, 0, 0].tolist() == [0, 10, 20]
    assert draw(people, "recall 0.75", 2).shape == (2, 1, 128, 128)


def test_embeddings_are_of_the_models_faces(people, model):
    drawn, judge = draw(people, "pencil", 2), Judge()
    found = embed_faces(model, judge, drawn, TINY, batch=4)
    with torch.inference_mode():
        for person, k in ((0, 0), (1, 2)):
            face = model(people[4 * person + k]["sketch"][None])[0]
            np.testing.assert_allclose(found[person, k], judge.embed(face)[0], atol=1e-5)
        several = embed_variants(model, judge, drawn[:, 0], TINY, 3, seed=4)
        assert several.shape == (2, 3, 48)
        np.testing.assert_allclose(several[:, 0], found[:, 0], atol=1e-5)  # the reconstruction comes first
        faces = model.multimodal(people[4]["sketch"], 2, seed=4)
        np.testing.assert_allclose(several[1, 1:], judge.embed(faces), atol=1e-5)
    assert np.abs(several[:, 1] - several[:, 2]).max() > 0


def test_probes_are_made_once(people, model, tmp_path):
    judge = Judge()
    kinds = ("pencil", "line, clean", "recall 0")

    def make(net=model, weights="w", variants=2):
        return make_probes(people, net, judge, TINY, kinds, 1, variants, 0, tmp_path, weights)

    first = make()
    galleries, _ = gallery_indices(people.identities, np.asarray(people.names))
    np.testing.assert_array_equal(first.index, galleries[2])
    np.testing.assert_array_equal(first.identity, people.identities[first.index])
    assert [people.names[i][-1] for i in first.index] == ["3", "3"]
    photos = torch.stack([people[i]["photo"] for i in (3, 7)])
    np.testing.assert_allclose(first.gallery, judge.embed(photos), atol=1e-5)
    assert first.photo.shape == (2, 3, 48) and first.attributes[1] == people.attributes[7]
    assert {k: v.embedding.shape[:2] for k, v in first.kinds.items()} == {
        "pencil": (2, 3), "line, clean": (2, 1), "recall 0": (1, 1)}  # fmt: skip
    np.testing.assert_array_equal(first.kinds["recall 0"].variants, first.kinds["pencil"].variants)

    again = make(net=None)  # nothing is computed: the folder has everything
    np.testing.assert_array_equal(again.kinds["line, clean"].embedding, first.kinds["line, clean"].embedding)
    with pytest.raises(AttributeError):  # other weights: the embeddings are made anew
        make(net=None, weights="other")
    assert make(variants=3).kinds["pencil"].variants.shape == (1, 3, 48)
    (tmp_path / "val-pencil-faces.npz").write_bytes(b"half a file")
    with pytest.raises(DataError, match="delete it and run the same command"):
        make()


def test_refusals(people):
    with pytest.raises(S2FError, match="choose SynthFaces"):
        draw(Faces(2, 4), "pencil", 2)
    with pytest.raises(S2FError, match="photos each"):
        draw(open_dataset("tiny", "val", limit=7), "pencil", 2)
    with pytest.raises(S2FError, match="'crayon'"):
        probes.check_kinds(("pencil", "crayon"))
    with pytest.raises(S2FError, match="no kind of drawing ''"):
        probes.check_kinds(())
    assert probes.check_kinds(("recall 1", "pencil")) == ("pencil", "recall 1")
