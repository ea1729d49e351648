"""A drawing on a page, and the stand-in's fixtures, for every command."""

import pytest
from PIL import Image
from stand_in import drawing, stand_in_data_fixture, stand_in_fixture  # noqa: F401  (fixtures)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.png"
    Image.fromarray(drawing()).save(path)
    return path
