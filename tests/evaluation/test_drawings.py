"""Variation, agreement, and the drawing study on a few people."""

import csv

import numpy as np
import pytest
import torch

from s2flib.errors import ImageError, S2FError
from s2flib.evaluation import drawing_study
from s2flib.evaluation.drawing_study import PENCIL, Bench, Study, report_drawings
from s2flib.evaluation.drawings import REGIONS, agreement, by_region, variation
from s2flib.sketch import sketch
from s2flib.synthfaces.labels import LABELS


def test_variation_is_the_standard_deviation_in_grey_levels():
    faces = torch.rand(5, 3, 8, 8) * 2 - 1
    grey = (faces.numpy() + 1) / 2 * 255
    by_hand = np.sqrt(grey.var(0, ddof=1).mean(0))
    np.testing.assert_allclose(variation(faces), by_hand, rtol=1e-4)
    assert variation(faces[:1].expand(4, -1, -1, -1)).max() == 0
    for wrong in (faces[:1], faces[0]):
        with pytest.raises(ImageError, match="at least two faces"):
            variation(wrong)


def test_every_region_is_averaged_over_its_own_pixels():
    names = [label for labels in REGIONS.values() for label in labels]
    assert len(set(names)) == len(names) and set(names) <= set(LABELS)
    mask = torch.zeros(4, 4, dtype=torch.uint8)
    mask[0], mask[1, :2] = LABELS.index("hair"), LABELS.index("u_lip")
    mask[1, 2:] = LABELS.index("mouth")
    values = torch.arange(16.0).view(4, 4)
    assert by_region(values, mask) == {"hair": 1.5, "mouth": 5.5, "background": 11.5}


@pytest.fixture(scope="module")
def people(tiny_test):
    return [tiny_test[i] for i in (0, 4, 8)]


@pytest.fixture(scope="module")
def tiny_test():
    from s2flib.datasets.faces import open_dataset

    return open_dataset("tiny", "test", limit=12)


def test_agreement_is_one_for_the_sketchs_own_photo_and_less_for_another(people):
    photos, drawings, masks = (torch.stack([p[k] for p in people]) for k in ("photo", "sketch", "mask"))
    own = agreement(drawings, photos, masks)
    assert own.shape == (3,) and (own > 0.98).all()
    assert (agreement(drawings, photos.roll(1, 0), masks) < 0.8 * own).all()


def test_agreement_is_a_weighted_correlation(people):
    """Against numpy, and not moved by the drawing's contrast or by what lies outside the mask."""
    from s2flib.evaluation.drawings import BLUR
    from s2flib.sketch import gaussian_blur

    face, drawing, mask = people[0]["photo"][None], people[1]["sketch"][None], people[0]["mask"][None]
    a = gaussian_blur(1 - drawing, BLUR * 128)[0, 0].numpy()
    b = gaussian_blur(1 - sketch(face, mask), BLUR * 128)[0, 0].numpy()
    inside = mask[0].numpy() > 0
    expected = np.corrcoef(a[inside], b[inside])[0, 1]
    assert float(agreement(drawing, face, mask)) == pytest.approx(expected, abs=1e-4)
    assert float(agreement(0.5 + 0.5 * drawing, face, mask)) == pytest.approx(expected, abs=1e-3)
    blank = torch.ones_like(drawing)
    assert float(agreement(blank, face, mask)) == 0
    with pytest.raises(ImageError, match="as many"):
        agreement(drawing.expand(2, -1, -1, -1), face, mask)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(drawing_study, "KINDS", (PENCIL, "line drawing, sketchy"))
    monkeypatch.setattr(drawing_study, "FIDELITIES", (1.0, 0.0))


def test_the_study_end_to_end(small, tmp_path):
    from s2flib.files import weights_dir

    encoders = {"both": weights_dir() / "tiny-psp.safetensors"}
    text, folder = report_drawings(Study(people=2, variants=3), tmp_path / "out")
    report_drawings(Study(people=2, encoders=encoders), tmp_path / "trained")
    tables = {p.stem: list(csv.DictReader(open(p, newline=""))) for p in tmp_path.glob("*/*.csv")}
    assert set(tables) == {"variants", "accessories", "accessories_photos", "training"}
    assert (folder / "run.json").is_file() and (folder / "drawings.txt").read_text().strip() == text.strip()
    one = {(r["drawing"], float(r["fidelity"])): r for r in tables["variants"]}
    strict, loose = one[PENCIL, 1.0], one[PENCIL, 0.0]
    assert float(strict["agreement"]) > float(loose["agreement"])  # fidelity 0 forgets the drawing
    assert float(strict["alike"]) > float(loose["alike"]) and float(strict["variation hair"]) > 0
    assert float(strict["agreement of the photo"]) > float(strict["agreement of another person"])
    for row in tables["accessories"]:
        assert float(row["seen on the photo"]) == (row["worn"] == "with")
    assert {r["tested on"] for r in tables["training"]} == {PENCIL, "line drawing"}
    with pytest.raises(S2FError, match="already contains"):
        report_drawings(Study(people=2, variants=3), folder)


def test_the_twin_differs_only_where_the_accessory_is(tiny_test):
    bench = Bench(Study(people=8))
    i, both = next(drawing_study.pairs(bench, "glasses"))
    (photo, mask), (bare, bare_mask) = both["with"], both["without"]
    assert bench.data.attributes[i]["glasses"] not in ("none", "sun")
    eye_g = LABELS.index("eye_g")
    assert (mask == eye_g).any() and not (bare_mask == eye_g).any()
    far = torch.zeros(128, 128, dtype=torch.bool)
    far[100:] = True  # chin, neck, clothes
    changed = (photo - bare).abs().mean(0)
    assert changed[far].mean() < 0.005 < 0.05 < changed[mask == eye_g].mean()
    # and it is the data set's own photo, rendered again
    assert (photo - bench.data[i]["photo"]).abs().mean() < 0.05


def test_ranks_are_those_of_the_line_up():
    bench = Bench(Study(people=4))
    probes = bench.probes(PENCIL)
    others = [bench.other_shot(i) for i in probes]
    assert (bench.data.identities[others] == bench.data.identities[probes]).all() and not set(others) & set(probes)
    e = bench.embed(torch.stack([bench.data[i]["photo"] for i in others]))
    assert (bench.rank(e, probes) == 1).all()  # the gallery's own photos
    assert (bench.rank(np.roll(e, 1, 0), probes) > 1).all()


@pytest.mark.parametrize("study", [Study(variants=1), Study(people=1)])
def test_too_little_to_measure(study, tmp_path):
    with pytest.raises(S2FError, match="at least two"):
        report_drawings(study, tmp_path / "out")
