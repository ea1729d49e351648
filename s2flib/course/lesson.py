"""What every notebook of the course uses: the setup in its second cell, figures, progress bars.

Only the standard library is imported at the top, because on Colab this module runs first and installs the packages.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from s2flib.errors import S2FError
from s2flib.presets import Preset, get_preset

# The only place with the repository's name; a test checks every notebook against it.
GITHUB = "s2flib/s2flib"
DRIVE = Path("/content/drive/MyDrive")  # Google Drive, where Colab mounts it
BRANCH = "main"
# Not ".../s2flib": a folder of that name in the notebook's directory would shadow the package.
COLAB_DIR = "/content/s2flib-course"
ROOT = Path(__file__).resolve().parents[2]


def setup_line(name: str) -> str:
    """The line in a notebook's second code cell; the same in JupyterLab and Colab.

    On Colab it clones the course (once) to COLAB_DIR; everywhere it puts the notebook's checkout on the path, so that
    notebook and library have the same version. ``setup`` does the rest.
    """
    return (
        'import sys; "google.colab" in sys.modules and get_ipython().system('
        f'"test -d {COLAB_DIR} || '
        f'git clone -q --depth 1 -b {BRANCH} https://github.com/{GITHUB} {COLAB_DIR}"); '
        f'sys.path[:0] = ["..", "../..", "{COLAB_DIR}"]; '
        f'from s2flib import course; lesson = course.setup("{name}", preset, seed, out_dir, fast)'
    )


def badge(name: str, folder: str = "notebooks") -> str:
    """Markdown of the "Open in Colab" badge for notebooks/NAME.ipynb (or another folder's)."""
    url = f"https://colab.research.google.com/github/{GITHUB}/blob/{BRANCH}/{folder}/{name}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({url})"


@dataclass
class NotebookRun:
    """The result of one notebook. ``error`` is None, or one line: the cell, the exception, its message."""

    name: str
    cells: int
    seconds: float
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Lesson:
    """One run of one notebook: its settings, and where the results go."""

    name: str  # the notebook's name, e.g. "01_sketches"
    preset: Preset
    seed: int
    out: Path  # absolute; figures go to out/figures
    fast: bool  # True: the minimal steps and images that run every cell (tests)
    device: str  # "cuda" | "cpu"

    def show(self, fig, name: str, caption: str, key: bool = False) -> None:
        """Show a matplotlib figure with a caption, save it as out/figures/<lesson>-<name>.png, and close it.

        ``caption`` explains the figure in one or two sentences. It is also stored in the PNG for the course report,
        which shows ``key`` figures large.
        """
        import matplotlib.pyplot as plt
        from IPython.display import Image, Markdown, display

        from s2flib import __version__
        from s2flib.files import atomic_path
        from s2flib.images import text_entries

        path = self.out / "figures" / f"{self.name}-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = text_entries({
            "Description": caption, "Key": str(key), "Software": "s2flib", "software": f"s2flib {__version__}",
            "lesson": self.name, "preset": self.preset.name, "label": self.preset.label, "seed": self.seed,
        })  # fmt: skip
        with atomic_path(path) as temporary:
            fig.savefig(temporary, format="png", dpi=110, bbox_inches="tight", facecolor="white", metadata=about)
        plt.close(fig)
        # show the saved bytes, which do not depend on the kernel's matplotlib backend
        display(Image(data=path.read_bytes()))
        display(Markdown(f"*{caption}*"))

    def progress(self, iterable: Iterable | None = None, desc: str = "", total: int | None = None):
        """A tqdm bar that is readable in JupyterLab, in Colab and in an executed notebook's HTML."""
        from tqdm import tqdm

        return tqdm(iterable, desc=desc, total=total, file=sys.stdout, mininterval=0.5, ncols=90)


def setup(
    name: str, preset: str | Preset = "tiny", seed: int = 0, out_dir: str | Path = "runs/lab", fast: bool = False
) -> Lesson:
    """Prepare a notebook's kernel; the second cell of every notebook calls it.

    On Colab, missing packages are installed first; packages that the kernel has already imported are not replaced, so
    no restart is needed. Then it sets seeds (random, numpy, torch), device and output folder. A relative ``out_dir``
    is resolved in the course's folder, not in the kernel's working directory.

    Raises S2FError for an unknown preset, or for a package that is missing outside Colab.
    """
    preset = get_preset(preset)
    _absolute_path_entries()
    missing = missing_requirements()
    if missing and "google.colab" in sys.modules:
        _install(missing)
    elif missing:
        raise S2FError(f"the course needs {', '.join(missing)}: install it with 'make lab' in {ROOT}.")

    from s2flib.files import thread_settings

    for variable, value in thread_settings().items():
        os.environ.setdefault(variable, value)
    _keep_on_drive()

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = Path(out_dir)
    in_checkout = (ROOT / "pyproject.toml").is_file()
    out = (out if out.is_absolute() else (ROOT if in_checkout else Path.cwd()) / out).resolve()
    out.mkdir(parents=True, exist_ok=True)

    from s2flib import __version__

    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"s2flib {__version__} · preset {preset.name} ({preset.size} px) · {where} · "
        f"torch {torch.__version__} · Python {platform.python_version()}"
    )
    print(f"{preset.label} · seed {seed} · results go to {_short(out)}" + (" · FAST: a test run" * fast))
    return Lesson(name, preset, int(seed), out, bool(fast), device)


def mount_drive() -> None:
    """On Colab, mount Google Drive, where :func:`s2flib.files.trained_dir` then is: it survives a disconnect."""
    from google.colab import drive  # type: ignore[import-not-found]

    drive.mount(str(DRIVE.parent))
    _keep_on_drive()


def _keep_on_drive() -> None:
    if "google.colab" in sys.modules and DRIVE.is_dir():
        os.environ.setdefault("S2F_TRAINED", str(DRIVE / "s2flib"))


def missing_requirements() -> list[str]:
    """Requirements of pyproject.toml that this Python does not meet; [] where there is no pyproject.toml."""
    import tomllib

    from packaging.requirements import Requirement

    pyproject = ROOT / "pyproject.toml"
    if not pyproject.is_file():
        return []
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    in_kernel = ("ipywidgets", "anywidget")  # of the course extra, what a notebook itself imports
    wanted = list(project["dependencies"])
    wanted += [r for r in project["optional-dependencies"]["course"] if r.startswith(in_kernel)]
    missing = []
    for line in wanted:
        requirement = Requirement(line)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(line)
        else:
            # ignore the local part of versions such as torch 2.9.0+cu126, and accept pre-releases
            if not requirement.specifier.contains(version.split("+")[0], prereleases=True):
                missing.append(line)
    return missing


def imported_versions() -> dict[str, str]:
    """{distribution: version} of packages that this kernel has already imported and must keep."""
    versions = {}
    by_module = importlib.metadata.packages_distributions()
    for module in {name.partition(".")[0] for name in list(sys.modules)}:
        for dist in by_module.get(module, ()):
            try:
                versions[dist] = importlib.metadata.version(dist)
            except importlib.metadata.PackageNotFoundError:
                continue
    # compiled against each other: never update only some of them
    for dist in ("torch", "torchvision", "numpy", "scipy", "pillow"):
        if importlib.util.find_spec("PIL" if dist == "pillow" else dist):
            versions[dist] = importlib.metadata.version(dist)
    return versions


def _install(requirements: list[str]) -> None:
    """pip install missing packages without changing imported ones: replacing a package in a running kernel breaks setup
    cells ("numpy.dtype size changed ... restart the runtime")."""
    print(f"installing {', '.join(requirements)} (once per Colab session, about a minute) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "held.txt"
        versions = sorted(imported_versions().items())
        held.write_text("".join(f"{n}{'===' if '+' in v else '=='}{v}\n" for n, v in versions), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(held), *requirements]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise S2FError(
            f"pip could not install {', '.join(requirements)} ({last}): choose a newer runtime "
            "in Colab's menu Runtime > Change runtime type, then run this cell again."
        )
    importlib.invalidate_caches()


def _absolute_path_entries() -> None:
    """Make the '..' that the setup line adds to sys.path absolute, so that os.chdir does not break it."""
    sys.path[:] = [str(ROOT)] + [p for p in sys.path if p not in ("..", "../..", COLAB_DIR, str(ROOT))]


def _short(path: Path) -> str:
    """The path relative to the course or the home folder, if it is in one of them."""
    for base, prefix in ((ROOT, ""), (Path.home(), "~" + os.sep)):
        if path.is_relative_to(base) and path != base:
            return prefix + str(path.relative_to(base))
    return str(path)
