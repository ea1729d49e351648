"""A case of every step, and a drawing to start one."""

from pathlib import Path

import pytest
from case_files import case_fixture, case_weights_fixture, whole_case_fixture  # noqa: F401  (fixtures)
from PIL import Image
from stand_in import drawing, stand_in_data_fixture  # noqa: F401  (fixtures)


@pytest.fixture
def page(tmp_path) -> Path:
    Image.fromarray(drawing()).save(tmp_path / "page.png")
    return tmp_path / "page.png"
