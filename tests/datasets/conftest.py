"""A small data set that tests may damage."""

import pytest
from fake_faces import write_manifest, write_synthfaces


@pytest.fixture
def small_set(tmp_path):
    """Four photos of two people in the shipped format; rewrite(rows) changes the manifest."""
    root = tmp_path / "set"
    rows = write_synthfaces(root)
    return root, rows, lambda rows: write_manifest(root, rows)
