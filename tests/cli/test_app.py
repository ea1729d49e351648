"""The command itself: help without torch, errors of one sentence with exit code 2, interruptions."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import REPO, refused, s2f, shell
from PIL import Image

from s2flib.cli.options import seconds
from s2flib.errors import S2FError
from s2flib.weights import registry

COMMANDS = (
    "run generate edit invert sketch render render-people evaluate lineup identify evaluate-inversions "
    "evaluate-editor evaluate-drawings benchmark train sweep train-editor fetch case"
).split()


def test_help_names_every_command():
    result = s2f("--help")
    assert result.exit_code == 0
    listed = result.output.split("Commands:")[1].strip("\n").splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    for command, line in zip(COMMANDS, listed, strict=True):
        assert not line.endswith("Sec."), "typer cuts a command's help at its first full stop"
        assert s2f(command, "--help").exit_code == 0


def test_help_is_light():
    """No heavy module is imported before a command runs."""
    code = (
        "import sys; from s2flib.cli import app; "
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version():
    from s2flib import __version__

    assert __version__ in s2f("--version").output


def test_usage_errors_exit_with_2():
    for args in (("generate",), ("nonsense",), ("generate", "a.png", "-o", "x", "--n", "many"), ()):
        result = s2f(*args)
        assert result.exit_code == 2 and "Traceback" not in result.output


def test_a_bug_is_one_sentence_and_debug_shows_it(monkeypatch):
    monkeypatch.setattr(registry, "fetch", lambda name: 1 / 0)
    refused(s2f("fetch", "x"), "ZeroDivisionError", "--debug")
    for args in (("--debug", "fetch", "x"), ("fetch", "x", "--debug")):
        assert isinstance(s2f(*args).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["disk is full"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y.png"), ["/x/y.png", "permission denied"]),
        (MemoryError(), ["memory"]),
        (ModuleNotFoundError("No module named 'papermill'", name="papermill"), ["papermill", "make setup"]),
        (S2FError("two\nlines of\ntext."), ["two lines of text"]),
    ],
)
def test_errors_become_sentences(monkeypatch, error, words):
    def fail(name):
        raise error

    monkeypatch.setattr(registry, "fetch", fail)
    refused(s2f("fetch", "x"), *words)


def test_ctrl_c_is_one_sentence_and_130(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "fetch", interrupted)
    result = s2f("fetch", "x")
    assert result.exit_code == 130 and len(result.stderr.strip().splitlines()) == 1


def test_broken_pipe_is_quiet():
    """The reader is gone before the first line is written."""
    done = subprocess.run(
        f"'{sys.executable}' -m s2flib --help | true", shell=True, capture_output=True, text=True, cwd=REPO, timeout=120
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "text, expected",
    [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400), ("2.5", 2.5), (None, None)],
)
def test_lengths_of_time(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1h30x", "-5"])
def test_bad_lengths_of_time(text):
    with pytest.raises(S2FError, match="length of time"):
        seconds(text)


def test_as_a_process(tmp_path):
    done = shell("sketch", tmp_path / "none.png", "-o", tmp_path / "out.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.png" in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_interrupted_run_leaves_no_half_file(stand_in, page, tmp_path):
    """SIGINT in the middle of many faces: exit code 130, one sentence, and every file there is whole."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "s2flib", "generate", *[page] * 40, "-o", out, "--n", "64"],
        cwd=REPO,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # a shell's background job ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 100
        while not (out / "page_face_2.png").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in stderr and stderr.count("\n") == 1, stderr
    files = list(out.iterdir())
    assert files and not (out / "overview.png").exists()
    for file in files:
        Image.open(file).load()


@pytest.mark.parametrize("mine, then", [(None, "10000"), ("7", "7")])
def test_threads_do_not_spin_on_unless_the_user_says_otherwise(monkeypatch, mine, then):
    """torch reads it when it is loaded, so a command sets it first; see benchmarks/bench_busy.py."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if mine:
        monkeypatch.setenv("GOMP_SPINCOUNT", mine)
    assert s2f("fetch").exit_code == 0
    assert os.environ["GOMP_SPINCOUNT"] == then
