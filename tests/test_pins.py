"""What gets installed: every pin fits every Python and system that the README names, conda's and make's set agree."""

import ast
import importlib.metadata
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
    made = re.search(r"-m pip install .*?(-c \S+ -e '[^']+')", MAKEFILE, re.DOTALL).group(1).replace("'", "")
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
    optional = {"google", "c2pa", "cryptography"}  # on Colab only; where c2pa-python is installed (s2f case export)
    assert not {(path, top) for path, top in stray if top not in optional}


# --- a clone on any system --------------------------------------------------------------------------------------
