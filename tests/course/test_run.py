"""The runner: notebooks headless, several at a time, their pages and equations, the report's table."""

import base64
import html
import io
import json
import os
import re

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from s2flib.course import lesson, report
from s2flib.course import run as course
from s2flib.errors import S2FError

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
