"""A course run that failed goes on where it was; what changed runs again."""

from pathlib import Path

import pytest

from s2flib.course import resume
from s2flib.course import run as course
from s2flib.course.lesson import NotebookRun

INPUTS = ("s2flib/a.py", "s2flib/words.toml", "data/results/t.csv", "data/weights/SHA256SUMS", "notebooks/00_a.ipynb")
COUNT = "import pathlib\nwith open({!r}, 'a') as f:\n    f.write({!r})"


@pytest.fixture
def ran(small_course, tmp_path):
    """Two notebooks, of which the second one fails until the file ``fixed`` is there; which ones were executed."""
    log = tmp_path / "executed"
    second = COUNT.format(str(log), "b") + f"\nassert pathlib.Path({str(tmp_path / 'fixed')!r}).exists(), 'not fixed'"
    small_course(_00_a=COUNT.format(str(log), "a"), _01_b=second)

    def executed(**options) -> tuple[int, str]:
        log.write_text("")
        code = course.run_course(**options)
        return code, log.read_text()

    return executed


def test_after_a_failure_only_the_rest_runs(ran, tmp_path, capsys):
    assert ran() == (1, "ab")
    (tmp_path / "fixed").touch()
    assert ran() == (0, "b")
    (folder,) = (tmp_path / "runs").iterdir()
    out = capsys.readouterr().out
    assert "[1/2] 00_a: ok before, with the same inputs" in out and "2 of 2 notebooks ran through" in out
    assert "00_a" in (folder / "report.html").read_text(), "the report has both"
    assert ran() == (0, "ab") and len(list((tmp_path / "runs").iterdir())) == 2, (
        "a run that finished is not gone on with"
    )


def test_other_inputs_run_everything_in_a_new_folder(ran, tmp_path):
    assert ran() == (1, "ab")
    assert ran(seed=1) == (1, "ab") and len(list((tmp_path / "runs").iterdir())) == 2
    assert ran(seed=1) == (1, "b")
    assert ran(seed=1, again=True) == (1, "ab") and len(list((tmp_path / "runs").iterdir())) == 3


def test_a_notebook_that_changed_runs_again(ran, small_course, tmp_path):
    out = tmp_path / "here"
    assert ran(out=out) == (1, "ab") and ran(out=out) == (1, "b")
    small_course(_00_a=COUNT.format(str(tmp_path / "executed"), "A"))
    assert ran(out=out) == (1, "Ab")


def test_a_missing_page_or_a_damaged_note_runs_again(ran, tmp_path):
    out = tmp_path / "here"
    ran(out=out)
    (out / "00_a.html").unlink()
    assert ran(out=out) == (1, "ab")
    (out / "00_a.passed.json").write_text('{"inputs": 3')
    assert ran(out=out) == (1, "ab")


def test_inputs_depend_on_notebook_parameters_package_and_weights(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in (
        "s2flib/a.py",
        "s2flib/words.toml",
        "data/results/t.csv",
        "data/weights/SHA256SUMS",
        "notebooks/00_a.ipynb",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    monkeypatch.setattr(resume, "ROOT", root)
    monkeypatch.setenv("S2F_WEIGHTS", str(root / "data" / "weights"))
    notebook = [root / "notebooks" / "00_a.ipynb"]

    def now(**parameters) -> str:
        return resume.inputs_of(notebook, parameters)["00_a"]

    seen = {now(), now(seed=1)}
    assert now() in seen and len(seen) == 2
    for name in (
        "s2flib/a.py",
        "s2flib/words.toml",
        "data/results/t.csv",
        "data/weights/SHA256SUMS",
        "notebooks/00_a.ipynb",
    ):
        (root / name).write_text("2")
        assert now() not in seen, name
        seen.add(now())
    monkeypatch.setattr(resume, "_version", lambda package: "9")
    assert now() not in seen


def test_a_failed_notebook_loses_its_note(tmp_path: Path):
    for name in ("00_a.html", "00_a.ipynb"):
        (tmp_path / name).touch()
    resume.keep(tmp_path, NotebookRun("00_a", 3, 1.5), "x")
    assert resume.passed(tmp_path, "00_a", "x") == NotebookRun("00_a", 3, 1.5)
    assert resume.passed(tmp_path, "00_a", "y") is None
    resume.keep(tmp_path, NotebookRun("00_a", 3, 1.5, "cell 1"), "x")
    assert resume.passed(tmp_path, "00_a", "x") is None
