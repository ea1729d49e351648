"""Measure the face renderer: are its faces detected, and can its people be told apart?

    python scripts/measure_synthfaces.py [--people 200] [--size 128] [--seed 4242]

Two photos of each person are rendered (the second on another day). MTCNN detects the face; the identity network used
for evaluation (tiny preset) compares every pair: verification AUC over all pairs, and rank-1 of photo 2 among
everybody's photo 1. No network has been trained on these people: no data set uses this seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """Probability that a same-person pair scores above a different-person pair (Mann-Whitney)."""
    ranks = np.argsort(np.argsort(np.concatenate([same, other])))[: len(same)]
    return float((ranks.sum() - len(same) * (len(same) - 1) / 2) / (len(same) * len(other)))


def main() -> None:
    import torch
    from facenet_pytorch import MTCNN
    from tqdm import tqdm

    from s2flib.judges.load import identity_judge
    from s2flib.synthfaces.render import render_shot

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=4242)
    args = parser.parse_args()
    photos = [[], []]
    for i in tqdm(range(args.people), "rendering"):
        like = None
        for k in (0, 1):
            picture, like, _ = render_shot(args.seed, i, k, args.size, like=like)
            photos[k].append(picture.rgb)
    detector = MTCNN(min_face_size=args.size // 4, device="cpu")
    found = [detector.detect(p)[0] is not None for p in tqdm(photos[0] + photos[1], "MTCNN")]
    print(f"MTCNN finds {np.mean(found):.2%} of {len(found)} faces")
    judge = identity_judge("tiny", role="measure")
    codes = []
    for group in photos:
        x = torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            codes.append(torch.cat([judge.embed(b) for b in x.split(16)]).numpy())
    score = codes[1] @ codes[0].T
    same, other = np.diag(score), score[~np.eye(len(score), dtype=bool)]
    rank1 = float((score.argmax(1) == np.arange(len(score))).mean())
    print(
        f"{judge.label}: verification AUC {auc(same, other):.4f}, rank-1 {rank1:.3f} among {args.people} "
        f"({args.size} px, seed {args.seed})"
    )


if __name__ == "__main__":
    main()
