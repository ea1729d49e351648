"""The whole course, as ``make course`` runs it: minutes alone, and beside two busy processes.

    python benchmarks/bench_course.py [--notebooks 00 01] [--neighbours 0 2] [--jobs N]

Every notebook is executed under ``tiny`` into a temporary folder. Prints each notebook's seconds and the minutes of
all; the ratio is to the first of ``--neighbours``. Close everything else: the numbers are the machine's as it then is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from s2flib.files import available_cpus  # noqa: E402


def busy() -> None:
    while True:
        sum(range(100_000))


def course(notebooks: list[str], jobs: int | None) -> tuple[float, dict[str, float]]:
    """Minutes of ``s2f run``, and each notebook's seconds; stops where one fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "s2flib", "run", *notebooks, "--out", out, "--again"]
        command += ["--jobs", str(jobs)] if jobs else []
        started = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        minutes = (time.perf_counter() - started) / 60
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        record = json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))
    return minutes, {r["name"]: r["seconds"] for r in record["notebook_runs"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", nargs="*", default=[])
    parser.add_argument("--neighbours", nargs="*", type=int, default=[0, 2])
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()
    found = {}
    for neighbours in options.neighbours:
        others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(neighbours)]
        for process in others:
            process.start()
        found[neighbours] = course(options.notebooks, options.jobs)
        for process in others:
            process.terminate()
    print(f"{available_cpus()} cores; seconds of each notebook, beside so many busy processes")
    print(f"{'':24s}" + "".join(f"{n:>10d}" for n in found))
    for name in next(iter(found.values()))[1]:
        print(f"{name:24s}" + "".join(f"{seconds[name]:10.0f}" for _, seconds in found.values()))
    first = next(iter(found.values()))[0]
    print(f"{'all, minutes':24s}" + "".join(f"{minutes:10.1f}" for minutes, _ in found.values()))
    print(f"{'ratio':24s}" + "".join(f"{minutes / first:10.2f}" for minutes, _ in found.values()))


if __name__ == "__main__":
    main()
