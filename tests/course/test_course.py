"""The runner, the set-up line and the exercises' checks."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from s2flib.course import exercises, lesson, report
from s2flib.course import run as course
from s2flib.course.exercises import expect, expect_close, grade
from s2flib.errors import S2FError

# --- the runner ---------------------------------------------------------------------------------------

GOOD = """
import pathlib
folder = pathlib.Path(out_dir)
(folder / "table1.csv").write_text("method,mse,mse_low,mse_high\\nmean face,0.25,0.2,0.3\\n")
import numpy as np
from PIL import Image, PngImagePlugin
(folder / "figures").mkdir()
about = PngImagePlugin.PngInfo()
about.add_text("Description", "A <caption> & more")
about.add_text("Key", "True")
about.add_text("synthetic", "true")
about.add_text("history", "a ψ b")
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "figures" / "a.png", pnginfo=about)
print(preset, seed, fast)
"""


def test_run_course_writes_everything(small_course, capsys):
    root = small_course(_00_a=GOOD)
    assert course.run_course(preset="tiny", fast=True, seed=7) == 0
    (folder,) = (root / "runs").iterdir()
    names = {p.name for p in folder.iterdir()}
    assert names >= {"00_a.ipynb", "00_a.html", "table1.csv", "run.json", "report.html", "figures"}
    executed = nbformat.read(folder / "00_a.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "tiny 7 True\n"
    assert 'href="01_b.html"' in (folder / "00_a.html").read_text()
    record = json.loads((folder / "run.json").read_text())
    assert record["notebook_runs"][0]["name"] == "00_a" and record["notebook_runs"][0]["error"] is None
    assert record["wall_time_s"] > 0 and record["preset"] == "tiny" and record["seeds"] == [7]
    report = (folder / "report.html").read_text()
    assert "A &lt;caption&gt; &amp; more" in report and "data:image/png;base64," in report
    (embedded,) = re.findall(r"data:image/png;base64,([\w+/=]+)", report)
    text = Image.open(io.BytesIO(base64.b64decode(embedded))).text
    assert text["synthetic"] == "true" and text["history"] == "a ψ b", "the mark is lost in the report"
    assert "0.2500" in report and "[0.2000, 0.3000]" in report
    assert "not the paper&#x27;s numbers" in report
    out = capsys.readouterr().out
    assert "mean face" in out and str(folder / "report.html") in out and "[1/1] 00_a" in out


def test_a_failing_notebook_is_reported_and_the_others_run(small_course, tmp_path, capsys):
    failing = "\nvalue = 1\nraise ValueError('no such luck')"
    small_course(_00_a=failing, _01_b="import os\nos._exit(3)", _02_c=GOOD)
    out = tmp_path / "here"
    assert course.run_course(out=out) == 1
    first, second, third = json.loads((out / "run.json").read_text())["notebook_runs"]
    assert "ValueError: no such luck" in first["error"] and first["error"].startswith("cell 3 (value = 1)")
    assert "DeadKernel" in second["error"]
    assert third["error"] is None
    printed = capsys.readouterr().out
    assert "FAILED 00_a: cell 3" in printed and "1 of 3 notebooks ran through" in printed
    report = (out / "report.html").read_text()
    assert "2 of 3 notebooks failed" in report and "no such luck" in report
    assert (out / "00_a.html").is_file(), "the failed notebook can be read, with its traceback"


@pytest.mark.parametrize("jobs", [1, 2])
def test_notebooks_run_at_the_same_time(small_course, tmp_path, jobs, monkeypatch):
    """Two that wait for each other get through together only; each has its share of the cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    wait = """
import os, pathlib, time
folder = pathlib.Path(out_dir)
(folder / {!r}).write_text(os.environ.get("OMP_NUM_THREADS", ""))
ends = time.monotonic() + {}
while not (folder / {!r}).exists():
    assert time.monotonic() < ends, "the other one does not come"
    time.sleep(0.1)
"""
    patience = 60 if jobs == 2 else 3
    small_course(_00_a=wait.format("a", patience, "b"), _01_b=wait.format("b", patience, "a"), _02_c="x = 1")
    out = tmp_path / "here"
    assert course.run_course(out=out, jobs=jobs) == (0 if jobs == 2 else 1)
    found = json.loads((out / "run.json").read_text())["notebook_runs"]
    assert [r["name"] for r in found] == ["00_a", "01_b", "02_c"], "the report is in the course's order"
    assert [bool(r["error"]) for r in found] == [jobs == 1, False, False]
    threads = (out / "a").read_text()
    assert threads == (str(max(1, course.available_cpus() // 2)) if jobs == 2 else "")
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_killed_process_is_a_failure_that_says_what_to_do(small_course, tmp_path, capsys):
    kill = "import os, signal\nos.kill(int(os.environ['JPY_PARENT_PID']), signal.SIGKILL)"
    small_course(_00_a=kill, _01_b="import time\ntime.sleep(30)")
    out = tmp_path / "here"
    assert course.run_course(out=out, jobs=2) == 1
    assert "its process was killed: run s2f run --jobs 1" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text())["notebook_runs"][0]["error"]


def test_the_longest_notebook_starts_first(tmp_path):
    times = {"about 30 seconds": 30, "about 1½ minutes": 90, "about 6 minutes": 360, "about ½ minute": 30, "a while": 0}
    for text, seconds in times.items():
        path = tmp_path / "n.ipynb"
        path.write_text(
            json.dumps({"cells": [{"source": ["# t\n", f"**Time on a CPU:** {text}"]}]}, ensure_ascii=False)
        )
        assert course.stated_seconds(path) == seconds, text
    assert all(course.stated_seconds(p) > 0 for p in course.notebook_paths(folder=lesson.ROOT / "notebooks"))


def test_how_many_notebooks_at_a_time(monkeypatch):
    monkeypatch.setattr(course, "available_cpus", lambda: 8)
    for memory, jobs in ((2 * 2**30, 1), (7 * 2**30, 2), (64 * 2**30, course.MOST_JOBS), (None, 1)):
        monkeypatch.setattr(course, "memory_bytes", lambda memory=memory: memory)
        assert course.default_jobs("tiny") == jobs and course.default_jobs("colab") == 1
    monkeypatch.setattr(course, "available_cpus", lambda: 1)
    assert course.default_jobs("tiny") == 1
    with pytest.raises(S2FError, match="jobs is the number of notebooks"):
        course.run_course(jobs=0)


def test_notebooks_are_chosen_by_number_name_or_path(small_course):
    root = small_course(_01b_d="1", _00_a="1", _01_b="1", _10_c="1")
    assert [p.stem for p in course.notebook_paths()] == ["00_a", "01_b", "01b_d", "10_c"]
    assert [p.stem for p in course.notebook_paths(["01"])] == ["01_b"], "01b is another one"
    assert [p.stem for p in course.notebook_paths(["01b", "01"])] == ["01b_d", "01_b"]
    assert [p.stem for p in course.notebook_paths(["10", "00_a"])] == ["10_c", "00_a"]
    assert [p.stem for p in course.notebook_paths([str(root / "notebooks" / "01_b.ipynb")])] == ["01_b"]
    for wrong in ("12", "sketches", "0"):
        with pytest.raises(S2FError, match="choose from 00_a, 01_b, 01b_d, 10_c"):
            course.notebook_paths([wrong])


def test_without_notebooks_the_error_says_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "ROOT", tmp_path)
    with pytest.raises(S2FError, match="run the course from a clone"):
        course.run_course()
    with pytest.raises(S2FError, match="unknown preset"):
        course.run_course(preset="huge")


# --- the set-up -----------------------------------------------------------------------------------------


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


# --- exercises ------------------------------------------------------------------------------------------


def stub(*_):
    raise NotImplementedError


def broken(*_):
    return 1 / 0


def mix_right(a, b, k):
    return torch.cat([a[:k], b[k:]])


def mix_in_place(a, b, k):
    b[:k] = a[:k]
    return b


def r2_right(t, g):
    return 1 - ((t - g) ** 2).sum() / ((t - t.mean(0)) ** 2).sum()


def keep_right(photo, mask, labels):
    return np.where(np.isin(mask, labels)[..., None], photo, np.uint8(255))


def paired_right(a, b):
    return (b - a).mean(), (b - a).std(ddof=1) / len(a) ** 0.5


def rank1_right(s, p, g):
    return (g[s.argmax(1)] == p).mean()


def seeds_right(effect, sd):
    return max(2, int(np.ceil(2 * (1.96 * sd / effect) ** 2)))


RIGHT = {
    "00.n_styles": lambda size: 2 * (size.bit_length() - 2),
    "00.mix": mix_right,
    "01.direct": lambda g, b: np.clip(256 * g / np.maximum(b, 1), 0, 255),
    "01.keep_only": keep_right,
    "01.r2": r2_right,
    "06.trainable": lambda net: sum(p.numel() for p in net.parameters() if p.requires_grad),
    "06.reg": lambda w, m: (w - m).flatten(1).norm(dim=1).mean(),
    "06.split": lambda i: {8: "val", 9: "test"}.get(i % 10, "train"),
    "07.paired": paired_right,
    "07.rank1": rank1_right,
    "07.seeds": seeds_right,
}
WRONG = [
    ("00.n_styles", lambda size: 2 * (size.bit_length() - 1), "two styles"),
    ("00.n_styles", lambda size: 2.0 * (size.bit_length() - 2), "whole number"),
    ("00.n_styles", lambda size: None, "return"),
    ("00.mix", mix_in_place, "clone"),
    ("00.mix", lambda a, b, k: mix_right(b, a, k), "from w_a"),
    ("01.direct", lambda g, b: 256 * g / np.maximum(b, 1), "clip"),
    ("01.direct", lambda g, b: np.clip(256 * g / b, 0, 255), "0/0"),
    ("01.keep_only", lambda p, m, k: np.where(m[..., None] == k[0], p, np.uint8(255)), "white"),
    ("01.keep_only", lambda p, m, k: p.__setitem__(~np.isin(m, k), 255) or p, "copy"),
    ("01.r2", lambda t, g: 1 - ((t - g) ** 2).sum() / ((t - t.mean()) ** 2).sum(), "column"),
    ("06.trainable", lambda net: sum(p.numel() for p in net.parameters()), "frozen"),
    ("06.reg", lambda w, m: (w - m).flatten(1).square().sum(1).mean(), "root"),
    ("06.reg", lambda w, m: (w - m).norm(dim=2).mean(), "one norm per face"),
    ("06.split", lambda i: "train", "identity 8"),
    ("07.paired", lambda a, b: ((b - a).mean(), ((a.var(ddof=1) + b.var(ddof=1)) / 40) ** 0.5), "unpaired"),
    ("07.paired", lambda a, b: ((b - a).mean(), (b - a).std(ddof=1)), "√n"),
    ("07.rank1", lambda s, p, g: (g[s.argmax(0)[:1].repeat(len(p))] == p).mean(), ""),
    ("07.seeds", lambda effect, sd: int((1.96 * sd / effect) ** 2) + 1, "solve"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_checks_know_right_from_undone_and_broken(name):
    verdict = grade(name, RIGHT[name])
    assert verdict.status == "right", verdict.message
    assert grade(name, stub).status == "not done yet"
    failed = grade(name, broken)
    assert failed.status == "error" and "ZeroDivisionError" in failed.message and "broken" in failed.message
    assert grade(name, lambda *_: None).status in ("wrong", "error")


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_checks_give_the_right_hint(name, answer, hint):
    with np.errstate(all="ignore"):
        verdict = grade(name, answer)
    assert verdict.status == "wrong", verdict
    assert hint in verdict.message


def test_every_course_exercise_is_tested_here():
    lessons = ("00", "01", "06", "07")
    for number in lessons:
        exercises.find_checker(next(name for name in RIGHT if name.startswith(number)))
    ours = {name for name in exercises.CHECKERS if name.startswith(lessons)}
    assert ours == set(RIGHT)


def test_check_prints_and_strict_raises(capsys):
    exercises.check("00.mix", mix_right, strict=True)
    exercises.check("00.mix", stub)
    assert capsys.readouterr().out.startswith("✓ right: ")
    with pytest.raises(S2FError, match="00.mix is not done yet"):
        exercises.check("00.mix", stub, strict=True)
    for unknown in ("00.nothing", "99.x"):
        with pytest.raises(S2FError, match="there is no exercise"):
            exercises.check(unknown, stub)


def test_expect_close_says_what_differs():
    expect(True, "")
    expect_close(torch.ones(2, requires_grad=True), np.ones(2), "")
    for answer, hint in (
        (np.ones(3), r"shape is \(3,\)"),
        (None, "return"),
        ("text", "numbers"),
        (np.array([1, np.nan]), "not finite"),
        (np.array([1, 1.5]), "difference is 0.5"),
    ):
        with pytest.raises(exercises.Wrong, match=hint):
            expect_close(answer, np.ones(2), "hint")


def test_the_reports_table_puts_what_belongs_together_into_one_cell():
    head = ["method", "runtime_s", "runtime_spread_s", "mse", "mse_low", "mse_high", "preset"]
    html = report._table([head, ["a", "0.5", "0.1", "2", "1", "3", "tiny"], ["b", "0.25", "", "", "", "", "tiny"]])
    assert html.count("<th>") == 3 and "spread" not in html and "preset: tiny" in html
    assert re.search(r"<td>0\.5\d* ± 0\.1\d*</td>", html) and "<td>0.25" in html and html.count("±") == 1
    assert re.search(r"<small>\[1\S*, 3\S*\]</small>", html)


def test_equations_are_typeset_without_a_network(tmp_path):
    cells = [new_markdown_cell("Then\n\n$$\\frac{a}{b} = \\bar w$$\n\nand $5 stays."), new_markdown_cell("$$\\bad{$$")]
    notebook = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=cells), notebook)
    page = course.write_html(notebook).read_text(encoding="utf-8")
    assert re.search(r"<math[^>]*display=\"block\".*<mfrac>.*</math>", page)
    assert "$$\\frac" not in page and "$5 stays" in page


def test_every_equation_of_the_course_can_be_typeset():
    for path in sorted((lesson.ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                text = re.sub(r"\$\$.+?\$\$", "", cell.source, flags=re.DOTALL)
                inline = re.findall(r"\$[^$\n]+\$", text)
                assert not inline, f"{path.name}: the report shows inline equations as they are: {inline}"
                for tex in re.findall(r"\$\$(.+?)\$\$", cell.source, re.DOTALL):
                    made = course.mathml(tex)
                    text = html.unescape(re.sub("<[^>]*>", "", made))
                    assert made.startswith("<math") and not set("\\&") & set(text), f"{path.name}: {tex}"
                    assert "columnalign" not in made and made.count("text-align: left") >= made.count("<mtr")
                    assert made.count("<mtr") == (tex.count(r"\\") + 1 if r"\begin" in tex else 0), (
                        f"{path.name}: {tex}"
                    )


def test_a_lessons_threads_do_not_spin_on(monkeypatch, tmp_path):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    lesson.setup("01_sketches", out_dir=tmp_path)
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
