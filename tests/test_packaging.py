"""What surrounds the code: git, make, CI, Slurm, README and citation say the same thing."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import s2flib
from s2flib.cli import app as cli

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
MAKEFILE = (REPO / "Makefile").read_text()
README = (REPO / "README.md").read_text()


def text_files():
    """Every tracked text file (all files, where there is no git)."""
    done = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True)
    names = done.stdout.split("\n") if done.returncode == 0 else []
    paths = [REPO / name for name in names if name] or [
        path for path in REPO.rglob("*") if not {".venv", ".git", "runs"} & set(path.parts)
    ]
    return [
        path
        for path in paths
        if path.is_file() and path.stat().st_size < 2_000_000 and b"\0" not in path.read_bytes()[:4096]
    ]


def git(*arguments, cwd=REPO, **options):
    return subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, check=True, **options).stdout


def tracked():
    if not (REPO / ".git").exists():
        pytest.skip("no git checkout")
    return [name for name in git("ls-files", "-z").decode().split("\0") if name]


def attributes(names, attribute):
    """{name: value of the attribute} as git itself answers."""
    out = git("check-attr", "-z", "--stdin", attribute, input="\0".join(names).encode()).decode().split("\0")
    return dict(zip(out[0::3], out[2::3], strict=False))


def is_binary(data):
    """Whether any byte of the file is one that no text file here has (a NUL, or none of UTF-8)."""
    try:
        return "\0" in data.decode()
    except UnicodeDecodeError:
        return True


def test_git_leaves_the_bytes_of_binary_files_alone():
    names = [name for name in tracked() if (REPO / name).is_file()]
    text, ends = attributes(names, "text"), attributes(names, "eol")
    binary = [name for name in names if is_binary((REPO / name).read_bytes())]
    assert {Path(name).suffix for name in binary} >= {".png", ".npz", ".zip", ".safetensors"}
    assert not [name for name in binary if text[name] != "unset"], "add their kind to .gitattributes"
    rest = [name for name in names if text[name] != "unset"]
    assert not [name for name in rest if ends[name] != "lf"], "hashes and scripts depend on line ends"
    assert not [name for name in rest if b"\r" in (REPO / name).read_bytes()]


KINDS = "png jpg jpeg webp gif bmp tif ico pdf npy npz safetensors pt pth bin zip gz whl ttf otf woff2".split()


def test_a_clone_on_windows_has_the_committed_bytes(tmp_path):
    """Files whose bytes look like text with both line ends: git guesses text unless .gitattributes says binary."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    (source / "data" / "weights").mkdir(parents=True)
    (source / ".gitattributes").write_bytes((REPO / ".gitattributes").read_bytes())
    files = [f"a.{kind}" for kind in KINDS] + ["data/weights/SHA256SUMS", "data/weights/vocab.json"]
    for name in files:
        (source / name).write_bytes(b"one\r\ntwo\nthree\r\n")
    (source / "run.sh").write_bytes(b"#!/bin/sh\necho\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
    git("init", "-q", cwd=source)
    git(*who, "add", "-A", cwd=source)
    git(*who, "commit", "-qm", "a", cwd=source)
    git("clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", str(source), str(clone), cwd=tmp_path)
    changed = [name for name in files if (clone / name).read_bytes() != b"one\r\ntwo\nthree\r\n"]
    assert not changed, f"add {changed} to .gitattributes"
    assert (clone / "run.sh").read_bytes() == b"#!/bin/sh\necho\n"


# --- make, CI, Slurm --------------------------------------------------------------------------------------------


def make(*arguments, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=REPO, capture_output=True, text=True, env=environment, **options)


def test_make_alone_is_help():
    done = make()
    assert done.returncode == 0
    for target in ("course", "test", "fuzz", "lab", "lint", "fetch"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(
    "target, command",
    [
        ("course", "-m s2flib run"),
        ("test", "-m pytest"),
        ("fuzz", "-m fuzz"),
        ("lab", "-m jupyterlab"),
        ("lint", "-m ruff check"),
    ],
)
def test_targets_set_up_by_themselves(target, command, tmp_path):
    done = make("-n", target, f"VENV={tmp_path}/venv")
    assert done.returncode == 0, done.stderr
    assert "-m venv" in done.stdout and "-c constraints.txt" in done.stdout
    assert command in done.stdout and done.stdout.index("pip install") < done.stdout.index(command)


def test_an_old_python_is_refused_with_words(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make("setup", f"PYTHON={old}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0 and "3.11 or newer" in done.stderr and "Python 3.9.2" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    done = make("setup", f"VENV={tmp_path}", f"PYTHON={sys.executable}")
    assert done.returncode != 0 and "no virtual environment" in done.stderr and mine.read_text() == "mine"
    # clean removes the environment only if it is one; -n, so that this checkout's build folders stay
    assert "pyvenv.cfg" in make("-n", "clean", f"VENV={tmp_path}").stdout


def test_ci_runs_every_test():
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK) and "make test" in script.read_text()
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("script", sorted((REPO / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_scripts(script):
    """They parse, may be requeued, resume, and use only options that the command has."""
    text = script.read_text()
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "#SBATCH --requeue" in text and "--resume" in text
    commands = re.findall(r"-m s2flib (\w+)((?:[^\n]*\\\n)*[^\n]*)", text)
    assert commands
    for command in commands:
        check_command(*command)


def check_command(name, options):
    """The command exists and knows every --option in the text."""
    words = [name, options.split()[0]] if name == "case" else [name]  # a command with commands of its own
    result = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"there is no command s2f {' '.join(words)}"
    for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", options):
        assert option in result.output, f"s2f {name} has no {option}"


def test_slurm_sweep_uses_the_folders_of_s2f_sweep():
    script = (REPO / "slurm" / "sweep.sbatch").read_text()
    from s2flib.lambda4_sweep import LAMBDAS, SEEDS

    names = re.search(r"lambdas=\(([^)]*)\)", script).group(1).split()
    assert names == [f"{value:g}" for value in LAMBDAS]
    assert f"#SBATCH --array=0-{len(LAMBDAS) * len(SEEDS) - 1}" in script


# --- README and citation ----------------------------------------------------------------------------------------


def test_readme_commands_exist():
    blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    commands = re.findall(r"^\s*s2f ([\w-]+)([^#\n]*)", blocks, re.MULTILINE)
    assert {name for name, _ in commands} >= {
        "sketch",
        "generate",
        "edit",
        "train",
        "sweep",
        "evaluate",
        "evaluate-editor",
        "lineup",
        "fetch",
    }
    for command in commands:
        check_command(*command)
    for target in re.findall(r"^make (\w+)", blocks, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"there is no make {target}"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert links
    for link in links:
        assert (REPO / link).exists(), f"README.md links to {link}, which is not there"


def test_readme_maps_every_notebook_with_its_own_time():
    rows = dict(re.findall(r"^\| \[?(\d\d[a-z]?_\w+)[^|]*\|[^|]*\| ([^|]*) \|$", README, re.MULTILINE))
    notebooks = {path.stem: path for path in (REPO / "notebooks").glob("[0-9][0-9]*_*.ipynb")}
    assert set(notebooks) <= set(rows)
    for name, time in rows.items():
        if name not in notebooks:
            assert time == "planned", f"README.md maps {name}, which is not there"
            continue
        opening = "".join(json.loads(notebooks[name].read_text())["cells"][0]["source"])
        stated = re.search(r"\*\*Time on a CPU:\*\*\s*(.*)", opening).group(1).strip().rstrip(".")
        assert f"(notebooks/{name}.ipynb)" in README and time == stated, f"{name} says {stated!r}, README.md {time!r}"


def test_readme_has_no_placeholders():
    assert not re.search(r"TODO|TBD|FIXME|XXX|lorem", README)


def test_versions_agree():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation["version"] == s2flib.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (REPO / "LICENSE").read_text().startswith("MIT License")


def test_no_path_of_one_machine_is_tracked():
    """Nothing under version control names a folder of the machine it was written on."""
    home = re.compile(r"/(?:home|Users)/[a-z]\w*/|(?<![\w.])/wor" r"k/\w|/ro" r"ot/\.")
    for path in text_files():
        text = path.read_text(errors="replace")
        if path.suffix == ".ipynb":
            text = json.dumps(json.loads(text))
        assert not home.search(text), f"{path.relative_to(REPO)}: {home.search(text).group()}"
