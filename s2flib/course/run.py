"""Running the notebooks headless.

``make course`` and ``s2f run`` call ``run_course``: papermill executes each notebook, and a folder
``runs/<time>/`` receives executed notebooks, their HTML, figures, table1.csv, run.json and report.html.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2flib.course.lesson import GITHUB, ROOT
from s2flib.errors import S2FError
from s2flib.presets import get_preset

TQDM_WIDGET = re.compile(r".{0,80}\d+%\|.*\| \d+/\d+ \[")


@dataclass
class NotebookRun:
    """What became of one notebook. ``error`` is None, or one line: the cell, the exception, its message."""

    name: str
    cells: int
    seconds: float
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


def notebook_paths(names: Iterable[str] | None = None, folder: Path | None = None) -> list[Path]:
    """The course's notebooks in their order, or those named: "01", "01_sketches" and a path all work.

    Raises S2FError when a name fits none, and when s2flib was installed without its notebooks.
    """
    folder = ROOT / "notebooks" if folder is None else Path(folder)
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise S2FError(
            f"there are no notebooks in {folder}: run the course from a clone of https://github.com/{GITHUB}."
        )
    if not names:
        return paths
    chosen = []
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        fits = [p for p in paths if p.stem == stem] or [p for p in paths if p.stem.startswith(stem)]
        if len(fits) != 1:
            raise S2FError(
                f"no single notebook is called {name!r}: choose from {', '.join(p.stem for p in paths)}."
            )
        chosen += [p for p in fits if p not in chosen]
    return chosen


def run_course(
    out: str | Path | None = None,
    preset: str = "tiny",
    notebooks: Iterable[str] | None = None,
    fast: bool = False,
    seed: int = 0,
) -> int:
    """Execute the course's notebooks headless, one after the other; returns the exit code (0: all ran).

    out:        folder for the results; default a new ``runs/<time>`` in the course's folder
    preset:     "tiny" | "colab" | "paper", passed to every notebook
    notebooks:  names or numbers, e.g. ["01", "06_training_psp"]; default all
    fast:       as few steps and images as possible: shows that every cell runs, not what it teaches

    A notebook that fails is reported with its cell, and the others still run. Prints Table 1 and the
    report's path at the end.
    """
    from s2flib import runs
    from s2flib.course.report import print_table1, write_report

    preset_name = get_preset(preset).name
    paths = notebook_paths(notebooks)
    if out is None:
        folder = Path(runs.new_run_dir(ROOT / "runs"))
    else:
        folder = Path(out).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
    record = runs.run_record(preset_name, {"notebooks": [p.stem for p in paths], "fast": fast}, [seed])
    print(f"the course: {len(paths)} notebooks under preset {preset_name}, results in {folder}", flush=True)
    results: list[NotebookRun] = []
    interrupted = False
    for i, path in enumerate(paths, 1):
        try:
            result = run_notebook(
                path,
                folder,
                dict(preset=preset_name, seed=seed, out_dir=str(folder), fast=fast),
                label=f"[{i}/{len(paths)}] {path.stem}",
            )
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted: the report covers what has run", flush=True)
            break
        results.append(result)
    runs.finish(record, notebook_runs=results)
    runs.write_json(folder / "run.json", record, overwrite=True)
    report = write_report(folder, results, record)
    print_table1(folder)
    failed = [r for r in results if not r.ok]
    for result in failed:
        print(f"FAILED {result.name}: {result.error}")
    print(
        f"{len(results) - len(failed)} of {len(paths)} notebooks ran through in "
        f"{record['wall_time_s'] / 60:.1f} minutes; report: {report}"
    )
    return 1 if failed or interrupted else 0


def run_notebook(path: Path, folder: Path, parameters: dict, label: str = "") -> NotebookRun:
    """Execute one notebook into folder/<name>.ipynb and .html. Errors inside it are returned, not raised."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = folder / path.name
    cells = len(nbformat.read(path, as_version=4).cells)
    bar: Any = {"desc": label, "leave": False} if sys.stderr.isatty() else False
    print(f"{label} ({cells} cells) ...", flush=True)
    started = time.perf_counter()
    error = None
    try:
        with _kernel_environment():
            papermill.execute_notebook(
                path,
                target,
                parameters=parameters,
                kernel_name="python3",
                language="python",
                extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
                cwd=path.parent,
                progress_bar=bar,
                execution_timeout=get_preset(parameters.get("preset", "tiny")).cell_timeout_s,
                start_timeout=120,
            )
    except PapermillExecutionError as failure:
        line = next((s for s in failure.source.splitlines() if s.strip()), "")
        error = f"cell {failure.cell_index} ({line.strip()[:60]}): {_short(f'{failure.ename}: {failure.evalue}')}"
    except Exception as failure:  # a dead kernel, a timeout, a full disk: the others may still run
        error = _short(f"{type(failure).__name__}: {failure}")
    result = NotebookRun(path.stem, cells, round(time.perf_counter() - started, 1), error)
    if target.is_file():
        try:
            _tidy_streams(target)
            write_html(target)
        except Exception as failure:
            result.error = result.error or f"no HTML: {type(failure).__name__}: {failure}"
    print(f"{label}: {f'FAILED, {result.error}' if result.error else 'ok'} ({result.seconds:.0f} s)", flush=True)
    return result


def _short(text: str, limit: int = 200) -> str:
    """An error's first line, for a list of errors; the notebook's own page has all of it."""
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _tidy_streams(notebook: Path) -> None:
    """Of a progress bar in an executed notebook keep the last state, as a terminal would show it; bars that
    were widgets leave nothing behind (their text says 0 % for ever)."""
    import nbformat

    from s2flib.files import atomic_path

    nb = nbformat.read(notebook, as_version=4)
    for cell in nb.cells:
        kept = []
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
            elif not TQDM_WIDGET.match(output.get("data", {}).get("text/plain", "")):
                kept.append(output)
        for output in kept:
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
        if cell.cell_type == "code":
            cell.outputs = kept
    with atomic_path(notebook) as temporary:
        nbformat.write(nb, temporary)


def write_html(notebook: Path) -> Path:
    """The executed notebook as one HTML file beside it: pictures inside, links between lessons kept.

    The page reads offline: a widget becomes its static picture, and scripts from other servers are left out.
    """
    import nbformat
    from nbconvert import HTMLExporter

    from s2flib.files import atomic_path

    nb = nbformat.read(notebook, as_version=4)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True)
    html, _ = exporter.from_notebook_node(nb, resources={"metadata": {"name": notebook.stem}})
    html = re.sub(r'<script[^>]*src="https?://[^>]*>\s*</script>', "", html)
    html = re.sub(r'href="((?:\.\./)?[\w/]*\d\d_\w+)\.ipynb', r'href="\1.html', html)
    target = notebook.with_suffix(".html")
    with atomic_path(target) as temporary:
        Path(temporary).write_text(html, encoding="utf-8")
    return target


@contextmanager
def _kernel_environment() -> Iterator[None]:
    """Environment of the kernels papermill starts: glibc keeps the memory of freed tensors, instead of giving
    it back and faulting it in again; training on a CPU is up to twice as fast. The user's settings win."""
    wanted = {
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
        "MALLOC_TOP_PAD_": "268435456",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
