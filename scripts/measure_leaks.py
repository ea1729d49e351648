"""Print what ridge regression predicts from photo, pencil sketch and line drawing (s2flib.evaluation.leaks).

    python scripts/measure_leaks.py [--train 4000] [--test 1200]

The input is 32 × 32 pixels; trained on train people of the shipped data set, R² on test people.
"""

from __future__ import annotations

import argparse


def main() -> None:
    from tqdm import tqdm

    from s2flib.datasets.faces import open_dataset
    from s2flib.evaluation.leaks import PICTURES, TARGETS, measure_leaks

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1200)
    args = parser.parse_args()
    train, test = open_dataset("tiny", "train", limit=args.train), open_dataset("tiny", "test", limit=args.test)
    leaks = measure_leaks(train, test, tqdm)
    for target in TARGETS:
        for picture in PICTURES:
            r = leaks[target, picture]
            print(
                f"{target:20s} {picture:14s} R² {r.value:+.2f} [{r.low:+.2f}, {r.high:+.2f}]  n = {r.n} photos of "
                f"{r.n_identities} people"
            )


if __name__ == "__main__":
    main()
