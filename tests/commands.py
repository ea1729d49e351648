"""Running s2f in the tests, in this process or as one of its own."""

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from s2flib.cli import app as cli

REPO = Path(__file__).resolve().parents[1]


def s2f(*args):
    """Run the command in this process; returns typer's result."""
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def refused(result, *words):
    """Exit code 2 and one sentence on stderr, without a traceback, naming ``words``."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("s2f: "), result.stderr
    assert result.stderr.rstrip().endswith(".") or result.stderr.rstrip().endswith(")"), result.stderr
    for word in words:
        assert str(word).lower() in result.stderr.lower(), result.stderr


def shell(*args, **options):
    return subprocess.run(
        [sys.executable, "-m", "s2flib", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=120,
        **options,
    )
