"""A face on a busy machine: how the threads of PyTorch's CPU kernels wait for each other.

    python benchmarks/bench_busy.py [--faces 20]

Two threads work on one face, alone and beside two busy processes, with libgomp's default (a thread spins while it waits
for the other one), with the spinning that the commands and notebooks of this repository set, and with none (it sleeps).
Prints milliseconds for a face, the median; the ratios are to the default in the same place.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from s2flib.files import PATIENT_THREADS  # noqa: E402

FACE = """
import sys, time, torch
from statistics import median
from s2flib.weights.load import load_psp
torch.set_num_threads(2)
psp, sketch, times = load_psp("tiny"), torch.rand(1, 1, 128, 128), []
with torch.inference_mode():
    for i in range(3 + int(sys.argv[1])):
        start = time.perf_counter()
        psp(sketch)
        times.append(1000 * (time.perf_counter() - start))
print(median(times[3:]))
"""


def busy() -> None:
    while True:
        sum(range(100_000))


def milliseconds(faces: int, spin: str | None) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {} if spin is None else {"GOMP_SPINCOUNT": spin}
    command = [sys.executable, "-c", FACE, str(faces)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=20)
    faces = parser.parse_args().faces
    counts = {"default": None, "ours": PATIENT_THREADS["GOMP_SPINCOUNT"], "none": "0"}
    print(f"{'':28s}" + "".join(f"{name:>22s}" for name in counts))
    for neighbours in (0, 2):
        others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(neighbours)]
        for process in others:
            process.start()
        took = {name: milliseconds(faces, spin) for name, spin in counts.items()}
        for process in others:
            process.terminate()
        cells = "".join(f"{ms:12.1f} ms ({ms / took['default']:4.2f})" for ms in took.values())
        print(f"{f'beside {neighbours} busy processes' if neighbours else 'alone':28s}{cells}")


if __name__ == "__main__":
    main()
