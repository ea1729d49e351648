"""The pictures under docs: whatever shows a face that nobody has says so."""

from pathlib import Path

import numpy as np
import pytest

from s2flib.files import sha256_of
from s2flib.images import read_metadata
from s2flib.presets import TINY
from s2flib.weights.load import psp_file

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# a chart, and the prototype's sheet, which no script makes
UNMARKED = {"edit-guidance.png", "before_128.png"}


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.png")), ids=lambda path: path.name)
def test_pictures_of_the_documentation_are_marked(path):
    assert (read_metadata(path).get("synthetic") == "true") == (path.name not in UNMARKED)


def test_the_teaser_says_how_it_was_made(script, tmp_path):
    script("make_teaser").main(tmp_path / "teaser.png")
    made, shipped = read_metadata(tmp_path / "teaser.png"), read_metadata(DOCS / "teaser.png")
    assert made["synthetic"] == "true" and made["weights_sha256"] == sha256_of(psp_file(TINY))
    assert made["preset"] == "tiny" and len(made["generator"]) == 16
    assert {k: v for k, v in shipped.items() if k != "Software"}.keys() <= made.keys()


@pytest.mark.parametrize("name", ["teaser.png", "edits.png"])
def test_the_pictures_are_those_of_the_shipped_weights(name):
    """Whoever replaces the encoder must draw them again."""
    assert read_metadata(DOCS / name)["weights_sha256"] == sha256_of(psp_file(TINY))


def test_the_edits_figure_counts_every_face(script, tmp_path, capsys):
    script("make_edits_figure").main(tmp_path / "edits.png", people=2)
    assert read_metadata(tmp_path / "edits.png").keys() == read_metadata(DOCS / "edits.png").keys()
    assert "all edits of generated faces" in capsys.readouterr().out


def test_contact_sheets_are_marked(script, tmp_path, monkeypatch):
    """All six, without the minutes of rendering."""
    sheets = script("make_contact_sheets")
    face = np.full((16, 16, 3), 90, np.uint8)
    for name in ("photos", "attributes", "drawings", "edits"):
        monkeypatch.setattr(sheets, name, lambda *_: [face] * 8)
    monkeypatch.setattr("sys.argv", ["make_contact_sheets.py", "--out", str(tmp_path)])
    sheets.main()
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {path.name for path in (DOCS / "synthfaces").glob("*.png")} - UNMARKED
    assert all(read_metadata(tmp_path / name)["synthetic"] == "true" for name in names)
