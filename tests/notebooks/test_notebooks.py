"""Every notebook: stored clean, opened as the course promises, and run from top to bottom (fast mode)."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from editing_stand_in import published_fixture, published_template  # noqa: F401  (fixtures)

from s2flib.course import exercises
from s2flib.course import run_notebook
from s2flib.course.lesson import ROOT, badge, setup_line

FOLDER = ROOT / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
ALL = LESSONS + SOLUTIONS
PARAMETERS = {"preset": "tiny", "seed": 0, "out_dir": "runs/lab", "fast": False}


def name_of(path: Path) -> str:
    return path.stem


def read(path: Path):
    return nbformat.read(path, as_version=4)


def tagged(nb, tag: str) -> list:
    return [c for c in nb.cells if tag in c.metadata.get("tags", [])]


def checks_in(nb) -> list[tuple[str, bool]]:
    """(exercise, strict) of every course.check call, in order."""
    found = []
    for cell in tagged(nb, "check"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "course.check":
                strict = any(k.arg == "strict" and ast.literal_eval(k.value) for k in node.keywords)
                found.append((ast.literal_eval(node.args[0]), strict))
    return found


def test_the_course_of_this_release_is_complete():
    wanted = {"00_quickstart", "01_sketches", "02_synthetic_people", "03_stylegan2", "03b_psp_encoder", "04_cbam_attention",
              "05_losses", "06_training_psp", "07_lambda4", "08_instructpix2pix"}
    assert wanted <= {p.stem for p in LESSONS}
    assert {p.stem for p in SOLUTIONS} == {f"{p.stem}_solutions" for p in LESSONS}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_is_stored_clean(path):
    raw = path.read_text(encoding="utf-8")
    nb = nbformat.reads(raw, as_version=nbformat.NO_CONVERT)
    nbformat.validate(nb)
    assert (nb.nbformat, nb.nbformat_minor) == (4, 5)
    # GitHub shows "Invalid Notebook" for metadata.widgets
    assert set(nb.metadata) <= {"kernelspec", "language_info"}
    assert nb.metadata.kernelspec.name == "python3"
    assert len({c.id for c in nb.cells}) == len(nb.cells)
    for cell in nb.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    for private in ("/work/", "/root", "/home/", "/tmp"):
        assert private not in raw, f"a path of somebody's machine: {private}"


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_opens_as_every_notebook_does(path):
    nb = read(path)
    opening, parameters, set_up = nb.cells[:3]
    folder = path.parent.relative_to(ROOT).as_posix()
    assert opening.cell_type == "markdown" and opening.source.startswith("# ")
    badges = re.findall(r"\[!\[Open In Colab\].*", opening.source, flags=re.IGNORECASE)
    assert badges == [badge(path.stem, folder)]
    for part in ("**What you will learn**", "**In the paper:**", "**Time on a CPU:**"):
        assert part in opening.source
    assert parameters.metadata.tags == ["parameters"] and len(tagged(nb, "parameters")) == 1
    values = {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(parameters.source).body}
    assert values == PARAMETERS
    statements = [line for line in set_up.source.splitlines() if not line.startswith("#")]
    assert statements == [setup_line(path.stem)]


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_a_lesson_says_what_it_needs_and_what_one_can_answer_afterwards(path):
    opening = read(path).cells[0].source
    assert "**You need:**" in opening and "(../docs/glossary.md)" in opening
    assert f"(solutions/{path.stem}_solutions.ipynb)" in opening
    _, questions = opening.split("**Questions you can answer afterwards**")
    found = re.findall(r"^(\d)\. (.*\?)$", questions, re.MULTILINE)
    assert [number for number, _ in found] == ["1", "2", "3"]
    place = LESSONS.index(path)
    for other in LESSONS[max(0, place - 1) : place + 2]:
        assert other == path or f"({other.name})" in opening, f"no link to {other.name}"


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", cell.source):
                assert (path.parent / target).exists(), f"{target} in cell {cell.id}"


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_exercises_have_stub_check_and_solution(path):
    lesson, solved = read(path), read(FOLDER / "solutions" / f"{path.stem}_solutions.ipynb")
    stubs, checks = tagged(lesson, "exercise"), checks_in(lesson)
    assert 2 <= len(checks) <= 4 and len(stubs) == len(checks)
    assert all("raise NotImplementedError" in c.source for c in stubs)
    assert not any(strict for _, strict in checks)
    assert not tagged(lesson, "solution")
    assert checks_in(solved) == [(name, True) for name, _ in checks], "solutions check the same, strictly"
    for name, _ in checks:
        assert name.partition(".")[0] == path.stem.partition("_")[0] and exercises.find_checker(name)


@pytest.mark.notebook
@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_runs_from_top_to_bottom(path, tmp_path):
    parameters = PARAMETERS | {"fast": True, "out_dir": str(tmp_path / "out")}
    result = run_notebook(path, tmp_path, parameters, path.stem)
    assert result.ok, result.error
    executed = read(tmp_path / path.name)
    printed = "".join(o.get("text", "") for c in executed.cells if c.cell_type == "code" for o in c.outputs)
    expected = "✓ right" if path in SOLUTIONS else "… not done yet"
    assert printed.count(expected) == len(checks_in(read(path)))
    assert "Traceback" not in printed
    assert (tmp_path / f"{path.stem}.html").stat().st_size > 50_000
    if path in LESSONS:
        figures = list((tmp_path / "out" / "figures").glob(f"{path.stem}-*.png"))
        assert len(figures) >= 2


@pytest.mark.notebook
def test_the_editing_lesson_runs_with_the_published_pipelines_layout(published, tmp_path):
    """Preset colab, timbrooks/instruct-pix2pix played by a small stand-in: what a student with a GPU opens."""
    parameters = PARAMETERS | {"preset": "colab", "fast": True, "out_dir": str(tmp_path / "out")}
    result = run_notebook(FOLDER / "08_instructpix2pix.ipynb", tmp_path, parameters, "08_instructpix2pix")
    assert result.ok, result.error
    printed = "".join(o.get("text", "") for c in read(tmp_path / "08_instructpix2pix.ipynb").cells
                      if c.cell_type == "code" for o in c.outputs)
    assert "preset colab" in printed and "epsilon" in printed
