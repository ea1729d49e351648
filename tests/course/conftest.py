"""A course of a few cells, to run headless."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from s2flib.course import run as course

PARAMETERS = 'preset = "tiny"\nseed = 0\nout_dir = "."\nfast = False'


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """A function that makes a course of the given code cells, {name: source}."""
    monkeypatch.setattr(course, "ROOT", tmp_path)

    def make(**sources: str) -> Path:
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        for name, source in sources.items():
            parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
            cells = [new_markdown_cell("# t [next](01_b.ipynb)"), parameters, new_code_cell(source)]
            path = tmp_path / "notebooks" / f"{name[1:]}.ipynb"
            nbformat.write(new_notebook(cells=cells), path)
        return tmp_path

    return make
