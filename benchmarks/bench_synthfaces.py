"""Time the face renderer, alone or against the prototype it replaces.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/bench_synthfaces.py [--people 12] [--shots 3] [--size 128]
    ... --prototype PATH      a folder with the prototype's synthface.py, core.py and head_assets.npz

Both render the same number of people and shots at the same size and supersampling, taking turns person by
person, so that a busy machine slows both. CPU seconds are reported (wall time too), building included.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def ours(size: int, shots: int):
    from s2flib.synthfaces.render import render_shot

    def person(index: int) -> None:
        like = None
        for k in range(shots):
            _, like, _ = render_shot(777, index, k, size, like=like)

    return person


def prototype(path: Path, size: int, shots: int):
    import numpy as np

    sys.path.insert(0, str(path))
    import synthface as p

    here = os.getcwd()
    os.chdir(path)
    assets = p.Assets()
    os.chdir(here)

    def person(index: int) -> None:  # as in its generate.py
        rng = np.random.default_rng([777, index])
        first, built = p.identity(assets, rng), None
        for k in range(shots):
            look = first if k == 0 else p.restyle(assets, first, rng)
            if built is None or look["style"] != built.I["style"] or look["hair_seed"] != built.I["hair_seed"]:
                built = p.Person(assets, look)
            else:
                look["_scalp"] = built.I["_scalp"]
                built.I = look
            p.render(built, p.shot(rng, look), size, 2)

    return person


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--prototype", type=Path)
    args = parser.parse_args()
    renderers = {"s2flib.synthfaces": ours(args.size, args.shots)}
    if args.prototype:
        renderers["prototype"] = prototype(args.prototype.resolve(), args.size, args.shots)
    cpu, wall = dict.fromkeys(renderers, 0.0), dict.fromkeys(renderers, 0.0)
    for index in range(-1, args.people):  # the first person warms up
        for name, render in renderers.items():
            c, w = time.process_time(), time.perf_counter()
            render(max(index, 0))
            if index >= 0:
                cpu[name] += time.process_time() - c
                wall[name] += time.perf_counter() - w
    n = args.people * args.shots
    for name in renderers:
        print(
            f"{name}: {1e3 * cpu[name] / n:.0f} ms CPU an image, {1e3 * wall[name] / n:.0f} ms wall "
            f"({args.people} people x {args.shots} shots, {args.size} px, one process)"
        )
    if args.prototype:
        print(f"speed-up: {cpu['prototype'] / cpu['s2flib.synthfaces']:.2f}x")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
