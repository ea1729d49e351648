"""Ask the package index whether constraints.txt can be installed on every Python that the project names.

    python scripts/resolve_pins.py [3.11.0 3.14.0 ...]      (or: make resolve)

Without arguments: the oldest release of every Python in pyproject.toml's classifiers. Nothing is installed. pip answers
a requirement's markers for the Python that runs it, so a python3.X of that version is used where there is one;
otherwise this Python's pip asks for --python-version. Exit code 1 if a version cannot be resolved or something floats.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ".[course,dev]"


def pins(text: str) -> dict[str, str]:
    """constraints.txt: canonical name → version."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def named_pythons(pyproject: dict) -> list[str]:
    """["3.11.0", …]: the oldest release of every version in the classifiers, lowest first."""
    found = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line) for line in pyproject["classifiers"]]
    return [f"3.{minor}.0" for minor in sorted(int(match[1]) for match in found if match)]


def interpreter(version: str) -> list[str]:
    """The command of a pip for this Python: its own where there is one, else this one's with --python-version."""
    minor = version.rsplit(".", 1)[0]
    own = shutil.which(f"python{minor}")
    probe = "import pip, platform; print(platform.python_version())"
    found = own and subprocess.run([own, "-c", probe], capture_output=True, text=True).stdout
    return [own] if own and found and found.startswith(f"{minor}.") else [sys.executable]


def resolve(version: str, folder: Path) -> dict[str, str]:
    """{canonical name: version} of what pip would install on this Python. RuntimeError with pip's reason."""
    report = folder / f"{version}.json"
    command = [*interpreter(version), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--only-binary=:all:", "--python-version", version, "--target", str(folder / version)]
    command += ["--report", str(report), "-c", "constraints.txt", EXTRAS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reasons = [line.strip() for line in done.stderr.splitlines() if "WARNING" not in line and line.strip()]
        raise RuntimeError("\n  ".join(reasons[:8]))
    chosen = (entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"])
    return {canonicalize_name(metadata["name"]): metadata["version"] for metadata in chosen}


def floating(found: dict[str, str], pinned: dict[str, str], own: str = "s2flib") -> list[str]:
    """What pip chose by itself: packages that constraints.txt does not pin to this version."""
    return [f"{n}=={v}" for n, v in sorted(found.items()) if n != own and pinned.get(n) != v.split("+")[0]]


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    bad = 0
    for version in sys.argv[1:] or named_pythons(project):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = resolve(version, Path(folder))
            except RuntimeError as error:
                bad += 1
                print(f"Python {version}: cannot be resolved; change the pin in constraints.txt:\n  {error}")
                continue
        stray = floating(found, pinned)
        bad += bool(stray)
        print(f"Python {version}: {len(found)} packages, {f'NOT PINNED: {stray}' if stray else 'all pinned'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
