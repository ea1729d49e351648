"""s2f identify: what it writes and refuses."""

import torch
from commands import REPO, refused, s2f

from s2flib.evaluation.identification import TABLES
from s2flib.evaluation.matcher import KIND, SketchMatcher
from s2flib.weights import save_safetensors


def test_identify(tmp_path, stand_in):
    """The real command on two people of each split; the networks are untrained, so only the form is checked."""
    for name in ("dlib-resnet.safetensors", "tiny-id.safetensors"):
        if not (stand_in / "weights" / name).exists():
            (stand_in / "weights" / name).symlink_to(REPO / "data" / "weights" / name)
    torch.manual_seed(0)
    file = tmp_path / "matcher.safetensors"
    save_safetensors(file, SketchMatcher().state_dict(), {"kind": KIND})
    out = tmp_path / "out"
    arguments = ("-o", out, "--limit", 8, "--people", 2, "--variants", 2, "--matcher", file)
    result = s2f("identify", *arguments, "--kinds", "pencil; recall 1", "--debug")
    assert result.exit_code == 0, (result.output, result.exception)
    names = {p.name for p in out.iterdir()}
    assert {*(f"{t}.csv" for t in TABLES), "identification.txt", "per_probe.npz", "run.json", "probes"} == names
    assert "one photo of each of 2 test people" in result.output and "never evidence" in result.output
    assert "recall 1, matcher" in result.output and "line" not in (out / "candidates.csv").read_text()
    before = (out / "probes" / "test-recall-1-drawings.npz").stat().st_mtime_ns
    refused(s2f("identify", *arguments), "--overwrite")
    again = s2f("identify", *arguments, "--kinds", "pencil; recall 1", "--overwrite", "--debug")
    assert again.exit_code == 0 and (out / "probes" / "test-recall-1-drawings.npz").stat().st_mtime_ns == before


def test_refusals(tmp_path, stand_in):
    refused(s2f("identify", "-o", tmp_path, "--kinds", "crayon"), "crayon", "pencil")
    for option, word in (("--matcher", "no.safetensors"), ("--data", "nowhere")):
        result = s2f("identify", "-o", tmp_path, option, tmp_path / word)
        assert result.exit_code == 2 and word in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    refused(s2f("identify", "-o", tmp_path, "--seed", "-1"), "seed")
