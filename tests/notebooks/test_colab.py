"""The colab path from the badge on, on a CPU with stand-ins (tests/colab_stand_in.py): an encoder is trained in notebook
06, and the others use it. So every name, shape and message of the notebooks under ``colab`` is run."""

import json
import os
import subprocess
import sys

import colab_stand_in
import nbformat
import pytest

from s2flib.course import run_course
from s2flib.files import environment

USE_IT = ["00", "03b", "07"]
WITHOUT = ["01", "02", "03", "04", "05"]


def run(stand_in, out, notebooks):
    """Run notebooks under colab; returns everything that they printed, by name."""
    with environment(colab_stand_in.environment(stand_in)):
        code = run_course(out, "colab", notebooks, fast=True)
    record = json.loads((out / "run.json").read_text())
    assert code == 0, [f"{r['name']}: {r['error']}" for r in record["notebook_runs"] if r["error"]]
    printed = {}
    for r in record["notebook_runs"]:
        cells = nbformat.read(out / f"{r['name']}.ipynb", as_version=4).cells
        outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
        texts = [o.get("text", "") or o.get("data", {}).get("text/markdown", "") for o in outputs]
        printed[r["name"]] = "\n".join(texts)
        assert "preset colab (256 px)" in printed[r["name"]] and "Traceback" not in printed[r["name"]]
    return printed


@pytest.mark.notebook
def test_every_lesson_with_the_identity_file(tmp_path):
    stand_in = colab_stand_in.write(tmp_path / "colab", identities=True)
    printed = run(stand_in, tmp_path / "out", ["06"])
    assert json.loads((stand_in / "trained" / "colab" / "run.json").read_text())["step"] == 2
    assert "Row 3: the trained one" in printed["06_training_psp"]
    printed = run(stand_in, tmp_path / "out", USE_IT + WITHOUT)
    assert "pSp (trained weights)" in (tmp_path / "out" / "table1.txt").read_text()
    assert "No line-up" not in printed["07_lambda4"]
    for name, text in printed.items():
        assert "ST-LPIPS" not in text or name in ("05_losses", "07_lambda4"), f"{name} names a judge that it does not use"


@pytest.mark.notebook
def test_without_the_identity_file_and_after_a_disconnect(tmp_path):
    """Nobody has two photos then, so there are no line-ups. Notebook 06 goes on with a training that was cut off."""
    stand_in = colab_stand_in.write(tmp_path / "colab", identities=False)
    trained = stand_in / "trained" / "colab"
    fields = ["batch=2", "limit=8", "val_limit=2", "typical=4", "seed=0", "steps=1"]
    command = [sys.executable, "-m", "s2flib", "train", "--preset", "colab", "-o", str(trained)]
    env = os.environ | colab_stand_in.environment(stand_in)
    subprocess.run([*command, *(f"--set={f}" for f in fields)], env=env, check=True)
    assert json.loads((trained / "run.json").read_text())["step"] == 1
    printed = run(stand_in, tmp_path / "out", ["06"])
    record = json.loads((trained / "run.json").read_text())
    assert record["step"] == 2 and (trained / "encoder.safetensors").is_file()
    steps = {line.split(",")[0] for line in (trained / "log.csv").read_text().splitlines()[1:]}
    assert steps == {"1", "2"}, "the first step was not run again"
    printed = run(stand_in, tmp_path / "out", ["00", "04", "05", "07"])
    assert "No line-up: this data set has one photo of each person" in printed["07_lambda4"]
