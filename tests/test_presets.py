"""Presets: three values of one dataclass that close over all their differences."""

import ast
from pathlib import Path

import pytest

from s2flib.errors import S2FError
from s2flib.files import weights_dir
from s2flib.presets import PRESETS, TINY, Suited, get_preset
from s2flib.weights import REGISTRY

PACKAGE = Path(__file__).resolve().parents[1] / "s2flib"


def test_a_preset_is_found_by_name_or_passes_through():
    assert get_preset("tiny") is TINY is get_preset(TINY)
    with pytest.raises(S2FError, match="tiny, colab, paper"):
        get_preset("huge")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_file_that_a_preset_names_exists_somewhere(preset):
    shipped = [name for name in (preset.shipped_psp, preset.shipped_generator, preset.edit.shipped) if name]
    assert all((weights_dir() / name).exists() for name in shipped)
    published = [name for name in (preset.published_psp, preset.published_generator) if name]
    assert all(name in REGISTRY for name in published)
    assert bool(preset.shipped_generator) != bool(preset.published_generator)
    assert preset.edit.trained_here == (preset.edit.shipped is not None)


def test_no_module_compares_a_presets_name():
    """What differs between presets is a field of Preset, looked up once."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                constants = {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)}
                if constants & set(PRESETS):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found


def test_suited_guidance_gives_way_at_its_limits():
    suited = Suited((7.0, 3.0, 1.5), (0.5, 2.0))
    assert [suited.of(moved) for moved in (0.0, 0.49, 0.5, 1.9, 2.0, 90.0)] == [7.0, 7.0, 3.0, 3.0, 1.5, 1.5]
    assert str(suited) == "7 for changes below 0.5 grey levels, 3 for changes below 2 grey levels, 1.5 for larger ones"
