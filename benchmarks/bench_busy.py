"""A face on a busy machine: how the threads of PyTorch's CPU kernels wait for each other.

    python benchmarks/bench_busy.py [--faces 20]

Two threads work on one face, alone and beside two busy processes, with libgomp's default (a thread spins while it waits
for the other one) and with GOMP_SPINCOUNT=0 (it sleeps), which the commands and notebooks of this repository set.
Prints milliseconds for a face, the median, and the ratio to the default in the same place.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys

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
    print(f"{'':28s}{'spinning (default)':>20s}{'GOMP_SPINCOUNT=0':>20s}{'ratio':>8s}")
    for neighbours in (0, 2):
        others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(neighbours)]
        for process in others:
            process.start()
        default, patient = milliseconds(faces, None), milliseconds(faces, "0")
        for process in others:
            process.terminate()
        where = f"beside {neighbours} busy processes" if neighbours else "alone"
        print(f"{where:28s}{default:17.1f} ms{patient:17.1f} ms{patient / default:8.2f}")


if __name__ == "__main__":
    main()
