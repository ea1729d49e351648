"""Runs the notebooks headless.

``make course`` and ``s2f run`` call ``run_course``: papermill executes each notebook, and the executed notebooks, their
HTML, figures, table1.csv, run.json and report.html are written to ``runs/<time>/``.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from s2flib.course.lesson import GITHUB, ROOT, NotebookRun
from s2flib.errors import S2FError
from s2flib.files import available_cpus, environment, memory_bytes, thread_settings
from s2flib.presets import get_preset

# Makes glibc keep freed memory in the kernels, which is up to twice as fast on a CPU.
KERNEL_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "268435456",
}
KERNEL_MEMORY = 3 * 2**30  # bytes that a notebook may need under tiny
MOST_JOBS = 4  # more notebooks at a time do not help: the longest one is waited for
TQDM_WIDGET = re.compile(r".{0,80}\d+%\|.*\| \d+/\d+ \[")


def notebook_paths(names: Iterable[str] | None = None, folder: Path | None = None) -> list[Path]:
    """The course's notebooks in order, or only those named: "01", "03b", "01_sketches" or a path.

    Raises S2FError when a name does not match exactly one, or s2flib was installed without its notebooks.
    """
    folder = ROOT / "notebooks" if folder is None else Path(folder)
    paths = sorted(folder.glob("[0-9][0-9]*_*.ipynb"))  # 03 and 03b
    if not paths:
        raise S2FError(
            f"there are no notebooks in {folder}: run the course from a clone of https://github.com/{GITHUB}."
        )
    if not names:
        return paths
    chosen = []
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        fits = [p for p in paths if stem in (p.stem, p.stem.partition("_")[0])]
        fits = fits or [p for p in paths if p.stem.startswith(stem)]
        if len(fits) != 1:
            raise S2FError(f"{name!r} does not match one notebook: choose from {', '.join(p.stem for p in paths)}.")
        chosen += [p for p in fits if p not in chosen]
    return chosen


def run_course(
    out: str | Path | None = None,
    preset: str = "tiny",
    notebooks: Iterable[str] | None = None,
    fast: bool = False,
    seed: int = 0,
    again: bool = False,
    jobs: int | None = 1,
) -> int:
    """Execute the course's notebooks headless, in order; returns the exit code (0: all ran).

    out:        folder for the results; default: a new ``runs/<time>`` in the course's folder, or the last one if its
                run did not finish
    preset:     "tiny" | "colab" | "paper", passed to every notebook
    notebooks:  names or numbers, e.g. ["01", "06_training_psp"]; default: all
    fast:       minimal steps and images: tests that every cell runs, without meaningful results
    again:      run every notebook in a new folder; otherwise those that passed in this folder with the same inputs are
                not run again (s2flib.course.resume)
    jobs:       notebooks at a time, which share the cores; None: :func:`default_jobs`. More than one run in processes
                of their own: a script that calls this needs the usual ``if __name__ == "__main__":``

    A failed notebook is reported with its cell, and the others still run. Prints Table 1 and the report's path at the
    end.
    """
    from s2flib import runs
    from s2flib.course import resume
    from s2flib.course.report import print_table1, write_report

    preset_name = get_preset(preset).name
    if jobs is not None and jobs < 1:
        raise S2FError(f"jobs is the number of notebooks at a time, 1 or more, not {jobs}.")
    paths = notebook_paths(notebooks)
    inputs = resume.inputs_of(paths, dict(preset=preset_name, seed=seed, fast=fast))
    if out is None:
        last = None if again else resume.unfinished(ROOT / "runs", inputs)
        folder = Path(runs.new_run_dir(ROOT / "runs")) if last is None else last
    else:
        folder = Path(out).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
    record = runs.run_record(preset_name, {"notebooks": [p.stem for p in paths], "fast": fast}, [seed])
    print(f"the course: {len(paths)} notebooks under preset {preset_name}, results in {folder}", flush=True)
    done: dict[str, NotebookRun] = {}
    left: list[tuple[Path, str]] = []
    for i, path in enumerate(paths, 1):
        label = f"[{i}/{len(paths)}] {path.stem}"
        before = None if again else resume.passed(folder, path.stem, inputs[path.stem])
        if before is None:
            left.append((path, label))
            continue
        done[path.stem] = before
        print(f"{label}: ok before, with the same inputs ({before.seconds:.0f} s; --again runs it again)", flush=True)
    interrupted = False
    parameters = dict(preset=preset_name, seed=seed, out_dir=str(folder), fast=fast)
    jobs = min(jobs or default_jobs(preset_name), max(1, len(left)))
    try:
        for result in _executed(left, folder, parameters, jobs):
            done[result.name] = result
            resume.keep(folder, result, inputs[result.name])
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: the report contains only the finished notebooks", flush=True)
    results = [done[path.stem] for path in paths if path.stem in done]
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


def default_jobs(preset: str) -> int:
    """Notebooks at a time: as many as there are cores and memory for where every network is shipped, otherwise one, for
    a GPU is shared and 06 trains what 07 measures."""
    if get_preset(preset).psp_origin != "shipped":
        return 1
    memory = memory_bytes()
    return max(1, min(available_cpus(), MOST_JOBS, memory // KERNEL_MEMORY if memory else 1))


def stated_seconds(notebook: Path) -> float:
    """What the notebook's first cell says under "Time on a CPU", in seconds; 0 where it says nothing."""
    found = re.search(r"\*\*Time on a CPU:\*\* about (\d*)(½?) (second|minute)", notebook.read_text(encoding="utf-8"))
    if found is None:
        return 0.0
    number = float(found[1] or 0) + (0.5 if found[2] else 0.0)
    return number * (60 if found[3] == "minute" else 1)


def _executed(notebooks: list[tuple[Path, str]], folder: Path, parameters: dict, jobs: int) -> Iterator[NotebookRun]:
    """Run notebooks (path, label), ``jobs`` at a time, each in a process of its own where that is more than one."""
    threads = {"OMP_NUM_THREADS": str(max(1, available_cpus() // jobs))} if jobs > 1 else {}
    with environment(threads | dict(os.environ)):  # what the user set comes first
        if jobs == 1:
            for path, label in notebooks:
                yield run_notebook(path, folder, parameters, label)
            return
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            longest_first = sorted(notebooks, key=lambda n: -stated_seconds(n[0]))  # the last one is waited for
            started: dict[Future, Path] = {
                pool.submit(run_notebook, path, folder, parameters, label, False): path for path, label in longest_first
            }
            try:
                for future in as_completed(started):
                    try:
                        yield future.result()
                    except BrokenProcessPool:  # killed, most likely for memory
                        why = "its process was killed: run s2f run --jobs 1, which needs less memory"
                        yield NotebookRun(started[future].stem, 0, 0.0, why)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()  # its kernel ends with it
                raise


def run_notebook(
    path: Path, folder: Path, parameters: dict, label: str = "", progress: bool | None = None
) -> NotebookRun:
    """Execute one notebook and write folder/<name>.ipynb and .html. Errors in it are returned, not raised.

    progress: show a bar; None: in a terminal.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = folder / path.name
    cells = len(nbformat.read(path, as_version=4).cells)
    shown = sys.stderr.isatty() if progress is None else progress
    bar: Any = {"desc": label, "leave": False} if shown else False
    print(f"{label} ({cells} cells) ...", flush=True)
    started = time.perf_counter()
    error = None
    try:
        with environment(KERNEL_ENVIRONMENT | thread_settings() | dict(os.environ)):  # what the user set comes first
            papermill.execute_notebook(
                path, target, parameters=parameters, kernel_name="python3", language="python", progress_bar=bar,
                extra_arguments=["--IPKernelApp.log_level=40"], cwd=path.parent, start_timeout=120,  # log errors only
                execution_timeout=get_preset(parameters.get("preset", "tiny")).cell_timeout_s,
            )  # fmt: skip
    except PapermillExecutionError as failure:
        line = next((s for s in failure.source.splitlines() if s.strip()), "")
        error = f"cell {failure.cell_index} ({line.strip()[:60]}): {_short(f'{failure.ename}: {failure.evalue}')}"
    except Exception as failure:  # a dead kernel, a timeout, a full disk: continue with the others
        error = _short(f"{type(failure).__name__}: {failure}")
    result = NotebookRun(path.stem, cells, round(time.perf_counter() - started, 1), error)
    if target.is_file():
        try:
            _tidy_streams(target)
            write_html(target)
        except Exception as failure:
            result.error = result.error or f"no HTML: {type(failure).__name__}: {failure}"
    print(f"{label}: {'ok' if result.ok else f'FAILED, {result.error}'} ({result.seconds:.0f} s)", flush=True)
    return result


def _short(text: str) -> str:
    """An error's first line, for a list of errors; the notebook's page has the complete text."""
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    return line if len(line) <= 200 else line[:199] + "…"


def _tidy_streams(notebook: Path) -> None:
    """Keep only the last state of progress bars in an executed notebook, as a terminal shows it, and remove bars that
    were widgets (their text stays at 0 %)."""
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


def mathml(tex: str) -> str:
    """TeX of a displayed equation as MathML; as it is, in a block of code, if it cannot be converted."""
    from latex2mathml.converter import convert

    try:
        made = " ".join(convert(tex.strip(), display="block").split())
        made = re.sub(r'columnalign="(\w+)"', r'style="text-align: \1"', made)  # browsers dropped the attribute
        # primes, which are dots where there is no font for mathematics
        return re.sub(r"<mi>(&#x0203[23];)</mi>", r'<mi mathsize="170%">\1</mi>', made)
    except Exception:  # the converter raises anything on TeX that it does not know
        return f"\n\n    {' '.join(tex.split())}\n\n"


def write_html(notebook: Path) -> Path:
    """Write the executed notebook as one HTML file in its folder, with embedded images and links between lessons.

    The page works offline: widgets become static images, equations become MathML, which browsers typeset by themselves,
    and scripts from other servers are removed.
    """
    import nbformat
    from nbconvert import HTMLExporter

    from s2flib.files import write_text

    nb = nbformat.read(notebook, as_version=4)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\$\$(.+?)\$\$", lambda found: mathml(found[1]), cell.source, flags=re.DOTALL)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True)
    html, _ = exporter.from_notebook_node(nb, resources={"metadata": {"name": notebook.stem}})
    html = re.sub(r'<script[^>]*src="https?://[^>]*>\s*</script>', "", html)
    html = re.sub(r'href="((?:\.\./)?[\w/]*\d\d[a-z]?_\w+)\.ipynb', r'href="\1.html', html)
    return write_text(notebook.with_suffix(".html"), html, overwrite=True)
