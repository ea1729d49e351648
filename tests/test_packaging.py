"""What surrounds the code: pins, conda, make, CI, Slurm, README and citation say the same thing."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import s2flib
from s2flib.cli import app as cli

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
MAKEFILE = (REPO / "Makefile").read_text()
README = (REPO / "README.md").read_text()


def requirements():
    """Everything pyproject.toml asks for, extras included."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def pins():
    """constraints.txt: canonical name → version."""
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return dict((canonicalize_name(name), version) for name, version in (line.split("==") for line in lines))


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


# --- what gets installed ----------------------------------------------------------------------------------------


def test_every_requirement_is_pinned_to_a_version_it_allows():
    pinned = pins()
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned in constraints.txt: run make pin"
        assert requirement.specifier.contains(version), f"{requirement} forbids the pinned {version}"


def test_pins_are_plain_public_versions():
    for line in (REPO / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_pins_agree_with_each_other():
    """What the pinned packages ask of each other is pinned, too, and allowed: pip has nothing left to choose."""
    pinned = pins()
    for name, version in pinned.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # another platform's
        if found.version.split("+")[0] != version:
            continue  # not the tested set: nothing to learn
        for requirement in map(Requirement, found.requires or ()):
            wanted = pinned.get(canonicalize_name(requirement.name))
            if wanted and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                assert requirement.specifier.contains(wanted, prereleases=True), f"{name} wants {requirement}"


def test_conda_gives_the_same_set_as_make():
    environment = yaml.safe_load((REPO / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    arguments = " ".join(pip)
    made = re.search(r"-m pip install .*?(-c \S+ -e '[^']+')", MAKEFILE).group(1).replace("'", "")
    assert arguments == made == "-c constraints.txt -e .[course,dev]"
    (python,) = (entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    version = python.split("=")[1]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
    others = [entry for entry in environment["dependencies"] if isinstance(entry, str) and entry != python]
    assert others == ["pip"], "packages come from pip's pins alone"


def imports(folder):
    """(file, top-level package) of every import in a folder that is neither Python's own nor ours."""
    ours = {path.stem for path in folder.rglob("*.py")} | {"s2flib"}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else ([node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])
            )
            for top in {module.split(".")[0] for module in modules} - ours - sys.stdlib_module_names:
                yield path.relative_to(REPO), top


@pytest.mark.parametrize("folder", ["s2flib", "tests", "scripts"])
def test_everything_imported_is_required(folder):
    """No module imports a package that only happens to be installed."""
    names = {canonicalize_name(requirement.name) for requirement in requirements()}
    homes = importlib.metadata.packages_distributions()
    stray = {
        (str(path), top)
        for path, top in imports(REPO / folder)
        if not {canonicalize_name(home) for home in homes.get(top, [top])} & names
    }
    assert not {(path, top) for path, top in stray if top != "google"}  # google.colab is there on Colab only


# --- make, CI, Slurm --------------------------------------------------------------------------------------------


def make(*arguments, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=REPO, capture_output=True, text=True, env=environment, **options)


def test_make_alone_is_help():
    done = make()
    assert done.returncode == 0
    for target in ("course", "test", "lab", "lint", "fetch"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(
    "target, command",
    [("course", "-m s2flib run"), ("test", "-m pytest"), ("lab", "-m jupyterlab"), ("lint", "-m ruff check")],
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
    result = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"there is no command s2f {name}"
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
    rows = dict(re.findall(r"^\| \[?(\d\d_\w+)[^|]*\|[^|]*\| ([^|]*) \|$", README, re.MULTILINE))
    notebooks = {path.stem: path for path in (REPO / "notebooks").glob("[0-9][0-9]_*.ipynb")}
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
