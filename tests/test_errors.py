"""What other libraries report becomes part of a one-line message."""

import pytest

from s2flib.errors import printable


@pytest.mark.parametrize(
    ("why", "shown"),
    [
        (ValueError("two\n  lines\t."), "two lines ."),
        (KeyError("a"), "'a'"),
        (MemoryError(), "MemoryError"),
        ("\x1b[31mred\0", "[31mred"),
        ("größe 3×4", "größe 3×4"),
        ("x" * 300, "x" * 200 + "…"),
    ],
)
def test_printable(why, shown):
    assert printable(why) == shown
