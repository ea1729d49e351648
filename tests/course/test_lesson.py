"""The set-up line: the checkout, Colab, Drive, seeds, missing packages, threads; and figures that are shown."""

import os
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s2flib.course import lesson
from s2flib.errors import S2FError


def test_setup_line_takes_the_checkout_the_notebook_lies_in(tmp_path):
    """Run as a kernel does: working directory notebooks/solutions of a copy, another s2flib installed or not."""
    copy = tmp_path / "clone"
    (copy / "notebooks" / "solutions").mkdir(parents=True)
    package = ("course/__init__", "course/lesson", "course/run", "course/exercises/__init__")
    for file in ("__init__", "errors", "presets", *package):
        target = copy / "s2flib" / f"{file}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((lesson.ROOT / "s2flib" / f"{file}.py").read_text())
    program = (
        "import sys\npreset, seed, out_dir, fast = 'tiny', 3, 'here', True\n"
        + lesson.setup_line("x")
        + "\nimport os, s2flib; os.chdir('/'); print(s2flib.__file__); print(lesson.out)"
    )
    for folder in ("notebooks", "notebooks/solutions"):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=copy / folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert Path(lines[-2]).resolve() == copy / "s2flib" / "__init__.py"


def test_setup_line_clones_in_colab_only():
    calls = []
    shell = types.SimpleNamespace(system=calls.append)
    scope = dict(get_ipython=lambda: shell, preset="tiny", seed=0, out_dir="runs/lab", fast=True)
    clone = lesson.setup_line("x").split("; ")[1]
    exec("import sys; " + clone, scope)
    assert calls == []
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    try:
        exec("import sys; " + clone, scope)
    finally:
        del sys.modules["google.colab"]
    (command,) = calls
    assert command.startswith(f"test -d {lesson.COLAB_DIR} ||")
    assert f"https://github.com/{lesson.GITHUB} {lesson.COLAB_DIR}" in command
    assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0


def test_setup_seeds_and_makes_the_folder(tmp_path, capsys):
    first = lesson.setup("x", "tiny", 5, tmp_path / "a" / "b")
    numbers = torch.rand(3), np.random.rand()
    again = lesson.setup("x", "tiny", 5, tmp_path / "a" / "b", fast=True)
    assert torch.equal(numbers[0], torch.rand(3)) and numbers[1] == np.random.rand()
    assert first.out.is_dir() and not first.fast and again.fast
    assert "not the paper's numbers" in capsys.readouterr().out
    with pytest.raises(S2FError, match="unknown preset"):
        lesson.setup("x", "huge", 0, tmp_path)


def test_trained_encoders_are_kept_on_drive(tmp_path, monkeypatch):
    """On Colab only, and only when Drive is mounted; what the user set comes first."""
    from s2flib.files import trained_dir

    monkeypatch.setattr(lesson, "DRIVE", tmp_path / "drive" / "MyDrive")
    monkeypatch.setenv("S2F_TRAINED", "x")  # restored at the end
    monkeypatch.delenv("S2F_TRAINED")
    mounted = []

    def mount(where):
        mounted.append(where)
        (tmp_path / "drive" / "MyDrive").mkdir(parents=True)

    lesson.setup("x", "tiny", 0, tmp_path)
    assert "S2F_TRAINED" not in os.environ
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    lesson.setup("x", "tiny", 0, tmp_path)
    assert "S2F_TRAINED" not in os.environ, "Drive is not mounted"
    lesson.mount_drive()
    assert mounted == [str(tmp_path / "drive")] and trained_dir() == tmp_path / "drive" / "MyDrive" / "s2flib"
    monkeypatch.setenv("S2F_TRAINED", "elsewhere")
    lesson.setup("x", "tiny", 0, tmp_path)
    assert os.environ["S2F_TRAINED"] == "elsewhere"


@pytest.fixture
def fake_requirements(tmp_path, monkeypatch):
    text = (
        '[project]\ndependencies = ["numpy>=2", "no-such-package-s2f>=1", "pillow>=999"]\n'
        '[project.optional-dependencies]\ncourse = ["jupyterlab>=999", "anywidget>=999"]\n'
    )
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(lesson, "ROOT", tmp_path)


def test_missing_requirements_are_named(fake_requirements, tmp_path):
    missing = ["no-such-package-s2f>=1", "pillow>=999", "anywidget>=999"]
    assert lesson.missing_requirements() == missing, "jupyterlab runs the kernel and is not imported by it"
    with pytest.raises(S2FError, match="no-such-package-s2f>=1.*make lab"):
        lesson.setup("x", "tiny", 0, tmp_path)


def test_colab_installs_and_holds_what_is_imported(fake_requirements, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    seen = {}

    def pip(command, **_):
        seen["command"] = command
        seen["held"] = Path(command[command.index("-c") + 1]).read_text()
        return types.SimpleNamespace(returncode=seen.get("code", 0), stderr="first\nERROR: conflict\n")

    monkeypatch.setattr(lesson.subprocess, "run", pip)
    lesson.setup("x", "tiny", 0, tmp_path)
    assert "no-such-package-s2f>=1" in seen["command"] and "numpy>=2" not in seen["command"]
    held = dict(line.replace("===", "==").split("==") for line in seen["held"].splitlines())
    assert held["numpy"] == np.__version__ and held["torch"] == version("torch") and "nbformat" in held
    seen["code"] = 1
    with pytest.raises(S2FError, match="ERROR: conflict.*Change runtime type"):
        lesson.setup("x", "tiny", 0, tmp_path)


def test_show_saves_the_picture_with_its_caption(tmp_path):
    from matplotlib.figure import Figure

    here = lesson.Lesson("00_a", lesson.get_preset("tiny"), 0, tmp_path, False, "cpu")
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    here.show(figure, "line", "A caption: ✓ ü.", key=True)
    here.show(figure, "line", "A caption: ✓ ü.", key=True)
    with Image.open(tmp_path / "figures" / "00_a-line.png") as image:
        assert image.text["Description"] == "A caption: ✓ ü." and image.text["Key"] == "True"
        assert image.text["synthetic"] == "true" and image.width > 100
        assert image.text["lesson"] == "00_a" and image.text["preset"] == "tiny" and image.text["seed"] == "0"
        assert image.text["software"].startswith("s2flib ") and "not the paper" in image.text["label"]


def test_a_lessons_threads_do_not_spin_on(monkeypatch, tmp_path):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    lesson.setup("01_sketches", out_dir=tmp_path)
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
