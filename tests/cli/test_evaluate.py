"""s2f evaluate and s2f lineup: what they write and refuse."""

import numpy as np
import pytest
from commands import REPO, refused, s2f

from s2flib.errors import S2FError
from s2flib.evaluation import Scores, encoder_report


def test_evaluate_and_lineup(tmp_path, monkeypatch, stand_in):
    """The real commands on a few real pictures; the encoder is untrained, so only the form is checked."""
    for name in ("dlib-resnet.safetensors", "st-lpips-alex.safetensors"):
        if not (stand_in / "weights" / name).exists():
            (stand_in / "weights" / name).symlink_to(REPO / "data" / "weights" / name)
    if not (stand_in / "synthfaces").exists():
        (stand_in / "synthfaces").symlink_to(REPO / "data" / "synthfaces")
    out = tmp_path / "e"
    result = s2f("evaluate", "-o", out, "--limit", 9, "--batch", 4, "--no-baselines", "--debug")
    assert result.exit_code == 0, (result.output, result.exception)
    assert {"table1.txt", "table1.csv", "table1.png", "run.json", "scores_pSp.npz"} <= {p.name for p in out.iterdir()}
    assert "pSp" in result.output and "n = 9" in result.output and "tiny preset" in result.output
    refused(s2f("evaluate", "-o", out, "--limit", 9), "--overwrite")
    result = s2f("lineup", "-o", tmp_path / "l", "--limit", 9, "--debug")
    assert result.exit_code == 0 and "rank-1" in result.output and "chance" in result.output
    assert {p.name for p in (tmp_path / "l").iterdir()} == {"lineup.txt", "run.json"}
    assert (
        s2f("evaluate", "-o", tmp_path / "lines", "--limit", 9, "--no-baselines", "--no-ranks", "--lines").exit_code
        == 0
    )
    pencil, lines = (Scores.load(folder / "scores_pSp.npz") for folder in (out, tmp_path / "lines"))
    assert (pencil.name == lines.name).all() and not np.allclose(pencil.mse, lines.mse)


def test_evaluate_refusals(tmp_path, stand_in):
    refused(s2f("evaluate", "-o", tmp_path / "e", "--split", "exam", "--data", REPO / "data" / "synthfaces"), "exam")
    refused(s2f("evaluate", "-o", tmp_path / "e", "--data", tmp_path / "nowhere"), "nowhere")
    refused(s2f("lineup", "-o", tmp_path / "l", "--weights", tmp_path / "no.safetensors"), "no.safetensors")


def test_line_drawings_are_of_synthetic_people_only(monkeypatch):
    monkeypatch.setattr(encoder_report, "open_dataset", lambda *_: object())
    assert encoder_report.EncoderTest("tiny").images()
    with pytest.raises(S2FError, match="leave out --lines"):
        encoder_report.EncoderTest("tiny", lines=True).images()
