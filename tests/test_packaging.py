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
from packaging.specifiers import SpecifierSet
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


# --- the lowest and the highest Python ----------------------------------------------------------------------------

NAMED = sorted(int(m[1]) for m in map(re.compile(r".* :: 3\.(\d+)").fullmatch, PROJECT["classifiers"]) if m)
PYTHONS = [f"3.{NAMED[0]}.0", f"3.{NAMED[0]}.99", *(f"3.{minor}.0" for minor in NAMED[1:])]
SYSTEMS = {
    "Linux": dict(sys_platform="linux", platform_system="Linux", os_name="posix", platform_machine="x86_64"),
    "macOS": dict(sys_platform="darwin", platform_system="Darwin", os_name="posix", platform_machine="arm64"),
    "Windows": dict(sys_platform="win32", platform_system="Windows", os_name="nt", platform_machine="AMD64"),
}


def marker_environment(python, system):
    """A requirement's markers are evaluated for this Python and system, not for the one that runs the test."""
    short = python.rpartition(".")[0]
    about = dict(python_version=short, python_full_version=python, implementation_version=python)
    return SYSTEMS[system] | about | dict(implementation_name="cpython", platform_python_implementation="CPython")


def installed(name, version):
    """The distribution, if it is the pinned one; None on a system or Python that does not need it."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    assert found.version.split("+")[0] == version, f"{name} {found.version} is installed, {version} pinned: make setup"
    return found


def needed(python, system, pinned):
    """[(requirement, who asks for it)]: everything that `make setup` gets on this Python and system, and its extras."""
    environment = marker_environment(python, system)
    todo = [(requirement, "pyproject.toml") for requirement in requirements()]
    found, seen = [], set()
    while todo:
        requirement, asker = todo.pop()
        found.append((requirement, asker))
        name = canonicalize_name(requirement.name)
        distribution = installed(name, pinned[name]) if name in pinned else None
        for extra in {"", *requirement.extras} if distribution else ():
            if (name, extra) not in seen:
                seen.add((name, extra))
                inner = map(Requirement, distribution.requires or ())
                active = [r for r in inner if r.marker is None or r.marker.evaluate(environment | {"extra": extra})]
                todo += [(r, f"{name} {pinned[name]}") for r in active]
    return found


def test_the_named_pythons_agree():
    """pyproject.toml's classifiers, what it requires, make's search, README.md and the pins' header name the same."""
    low, high = f"3.{NAMED[0]}", f"3.{NAMED[-1]}"
    assert list(range(NAMED[0], NAMED[-1] + 1)) == NAMED and PROJECT["requires-python"] == f">={low}"
    searched = {int(minor) for minor in re.findall(r"python3\.(\d+)", re.search(r"for p in (.*?);", MAKEFILE)[1])}
    assert searched == set(NAMED)
    assert f"Python {low} or newer (the pins are checked for {low} to {high})" in README
    assert f"from {low}.0 to {high} can install it" in (REPO / "constraints.txt").read_text()


@pytest.mark.parametrize("python", [PYTHONS[0], PYTHONS[-1]])
def test_every_pin_may_be_installed_on_the_lowest_and_the_highest_python(python):
    refused = {}
    for name, version in pins().items():
        distribution = installed(name, version)
        wanted = distribution and distribution.metadata["Requires-Python"]
        if wanted and not SpecifierSet(wanted).contains(python):
            refused[f"{name}=={version}"] = wanted
    assert not refused, f"Python {python} cannot install {refused}: pin an older version in constraints.txt"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_floats_on_any_named_python(python, system):
    """What is needed on that Python is pinned, setuptools included, and every requirement allows its pin."""
    pinned = pins()
    every = needed(python, system, pinned)
    names = {canonicalize_name(requirement.name) for requirement, _ in every}
    assert {"torch", "jupyterlab", "soupsieve", "setuptools"} <= names  # by way of others, too
    for requirement, asker in every:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{asker} needs {requirement.name} on {system}, Python {python}: pin it in constraints.txt"
        assert requirement.specifier.contains(version, prereleases=True), f"{asker} wants {requirement}, not {version}"


def test_every_pin_is_needed_somewhere():
    """No line of constraints.txt is left over from a package that nobody asks for any more."""
    pinned = pins()
    used = {canonicalize_name(r.name) for p in PYTHONS for s in SYSTEMS for r, _ in needed(p, s, pinned)}
    of_aiohttp = {"aiohappyeyeballs", "aiosignal", "frozenlist", "multidict", "propcache", "yarl"}  # Python 3.12's
    assert set(pinned) - used <= of_aiohttp


def test_the_build_is_pinned_to_the_same_setuptools():
    """pip builds s2flib apart from the environment, where constraints.txt does not apply."""
    (line,) = tomllib.loads((REPO / "pyproject.toml").read_text())["build-system"]["requires"]
    assert line == f"setuptools=={pins()['setuptools']}"


def test_make_pin_keeps_what_other_systems_need(tmp_path):
    """The pins of other systems, which pip freeze cannot see here, stay; the rest is what is installed."""
    recipe = re.search(r"^pin:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    (tmp_path / "Makefile").write_text(f"PY := {sys.executable}\nREADY := ready\npin:\n{recipe}")
    (tmp_path / "constraints.txt").write_text((REPO / "constraints.txt").read_text())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "pin"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "constraints.txt").read_text()
    assert "\naiohttp==" in written and "\nsetuptools==" in written and "\npip==" not in written
    head, _, rest = written.partition("by `make pin`:\n")
    assert "setuptools==" in rest and "aiohttp==" in head and written.startswith("# The exact set")


def test_make_resolve_asks_for_every_named_python(script, monkeypatch, capsys):
    """Without an index: pip's report is replaced; what floats or cannot be resolved is named, with exit code 1."""
    resolver = script("resolve_pins")
    assert resolver.named_pythons(PROJECT) == [f"3.{minor}.0" for minor in NAMED]
    good, asked, state = pins(), [], {}

    def resolve(version, folder):
        asked.append(version)
        if version == PYTHONS[-1] and "bad" in state:
            raise RuntimeError("no matching distribution")
        return good | {"s2flib": "0", "torch": good["torch"] + "+cpu"} | state.get("extra", {})

    monkeypatch.setattr(resolver, "resolve", resolve)
    monkeypatch.setattr(sys, "argv", ["resolve_pins.py"])
    assert resolver.main() == 0 and asked == resolver.named_pythons(PROJECT)
    state["bad"] = True
    assert resolver.main() == 1 and "no matching distribution" in capsys.readouterr().out
    state.update(extra={"stray": "1"})
    assert resolver.main() == 1 and "stray==1" in capsys.readouterr().out


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


# --- a clone on any system --------------------------------------------------------------------------------------


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
