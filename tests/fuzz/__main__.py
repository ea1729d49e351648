"""``make fuzz``: thousands of cases, and one table: tried and wrong, for each promise."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from tqdm import tqdm

from .runner import Result, run

PROMISES = {  # kind → (how many by default, what is promised)
    "pictures": (10_000, "a picture is read, or refused in one sentence that names it"),
    "weights": (500, "weights give the right network, or one sentence that names the file"),
    "folders": (500, "what is wrong with a data folder is found and named"),
    "downloads": (200, "a download is the right file, or a sentence and no file; the next try succeeds"),
    "kills": (100, "a killed process leaves whole files; run again, it gives the same result"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    for kind, (number, _) in PROMISES.items():
        parser.add_argument(f"--{kind}", type=int, default=number, metavar="N", help=f"default: {number:,}")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind; the others follow")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    cases = [(kind, options.seed + i) for kind in PROMISES for i in range(getattr(options, kind))]
    results: dict[str, list[Result]] = defaultdict(list)
    for result in tqdm(run(cases, max(1, options.jobs)), total=len(cases), unit="case", mininterval=1):
        results[result.kind].append(result)
        if result.sentence:
            tqdm.write(result.sentence, file=sys.stderr)
    wrong = [r.sentence for kind in PROMISES for r in sorted(results[kind], key=lambda r: r.seed) if r.sentence]
    print(f"{'kind':<10} {'tried':>7} {'wrong':>6} {'seconds':>8} {'slowest':>8}  promise")
    for kind, (_, text) in PROMISES.items():
        seconds, bad = [r.seconds for r in results[kind]], sum(bool(r.sentence) for r in results[kind])
        print(f"{kind:<10} {len(seconds):>7,} {bad:>6} {sum(seconds):>8.0f} {max(seconds, default=0):>8.1f}  {text}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
