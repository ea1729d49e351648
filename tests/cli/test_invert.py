"""s2f invert: options, what is printed, and refusals. Networks are an untrained mini preset's."""

import pytest
from commands import refused, s2f
from inversion_networks import (
    made_photos,
    mini_data_fixture,  # noqa: F401  (fixture)
    mini_weights_fixture,  # noqa: F401  (fixture)
    small_generator,
)
from PIL import Image

from s2flib import images
from s2flib.inversion import methods


@pytest.fixture
def photo(tmp_path, mini_weights):
    path = tmp_path / "ann.png"
    Image.fromarray(images.to_array(made_photos(small_generator(), 1, 21))[0]).save(path)
    return path


def test_invert(photo, tmp_path):
    out = tmp_path / "out"
    result = s2f("invert", photo, "-o", out, "-p", "mini", "-m", "e4e")
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {"ann_e4e.png", "ann_e4e_steps.png", "ann_e4e.safetensors"}
    assert "ann.png: e4e" in result.output and "MSE" in result.output and "edges" in result.output
    assert "(start" in result.output and "synthetic" in result.output
    refused(s2f("invert", photo, "-o", out, "-p", "mini", "-m", "e4e"), "exists already", "--overwrite")
    assert s2f("invert", photo, "-o", out, "-p", "mini", "-m", "e4e", "--overwrite", "--mark").exit_code == 0


@pytest.mark.parametrize("method, last", [("w-plus", 2), ("projector", 2), ("pti", 6)])
def test_steps(photo, tmp_path, method, last):
    """PTI's are those after its pivot's: four of the projector, the mini preset's."""
    result = s2f("invert", photo, "-o", tmp_path / "out", "-p", "mini", "--method", method, "--steps", 2)
    assert result.exit_code == 0, result.output
    told = [line for line in result.output.splitlines() if line.startswith("  ann.png: step ")]
    assert told[0].startswith("  ann.png: step 0, ") and told[-1].startswith(f"  ann.png: step {last}, ")


def test_refusals(photo, tmp_path, mini_weights):
    def run(*options):
        return s2f("invert", photo, "-o", tmp_path / "out", "-p", "mini", *options)

    for method in methods.METHODS:
        if method not in ("w-plus", "projector", "pti"):
            refused(run("--method", method, "--steps", 5), method, "--steps", "w-plus, projector, pti")
    refused(run("--method", "w-plus", "--steps", 0), "at least one update")
    refused(run("--method", "nerf"), "nerf", "hyperstyle")
    refused(run("--which", 0), "--align")
    refused(run("--align"), "ann.png", "face")
    refused(run("--method", "e4e", "--weights", tmp_path / "no.safetensors"), "no.safetensors")
    refused(
        run("--method", "e4e", "--weights", mini_weights / "mini-photo-psp.safetensors"),
        "kind",
        "mini-photo-psp.safetensors",
    )
    refused(run("--method", "projector", "--weights", mini_weights / "mini-e4e.safetensors"), "--weights")
    refused(s2f("invert", tmp_path / "none.png", "-o", tmp_path / "out", "-p", "mini"), "none.png")
    refused(s2f("invert", photo, "-o", tmp_path / "out.png", "-p", "mini"), "folder")
    refused(s2f("invert", photo, "-o", tmp_path / "out", "-p", "huge"), "huge")
    assert not (tmp_path / "out").exists()


def test_help_names_every_method():
    output = " ".join(s2f("invert", "--help").output.split())
    assert all(name in output for name in methods.METHODS) and tuple(methods.TITLES) == methods.METHODS
