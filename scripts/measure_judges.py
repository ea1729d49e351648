"""Print the results of the model cards in data/weights: how well the shipped networks tell SynthFaces apart.

python scripts/measure_judges.py
"""

from __future__ import annotations

import numpy as np
import torch

from s2flib.datasets.attributes import attribute_targets
from s2flib.datasets.faces import open_dataset
from s2flib.judges.load import attribute_net, identity_judge
from s2flib.judges.synthface_id import rank_1, verification_auc
from s2flib.training.classifiers import attribute_scores


def main() -> None:
    judges = [identity_judge("tiny", role) for role in ("train", "measure")]
    attributes = attribute_net()
    for split in ("val", "test"):
        ds = open_dataset("tiny", split)
        photos = torch.from_numpy(np.stack([ds.read(i)[0] for i in range(len(ds))])).permute(0, 3, 1, 2)
        batches = [part.float() / 127.5 - 1 for part in photos.split(32)]
        identity = torch.from_numpy(ds.identities)
        with torch.no_grad():
            for judge in judges:
                e = torch.cat([judge.embed(x) for x in batches])
                print(
                    f"{split}: {judge.label}: {len(e)} photos of {len(identity.unique())} people, verification AUC "
                    f"{verification_auc(e, identity):.4f}, rank-1 {rank_1(e, identity):.3f}",
                    flush=True,
                )
            logits = torch.cat([attributes(x) for x in batches])
        y = torch.from_numpy(attribute_targets(ds)).float()
        print(f"{split}: AttributeNet: " + ", ".join(f"{k} {v:.3f}" for k, v in attribute_scores(logits, y).items()))
        right, positive = ((logits > 0) == (y > 0.5)).float(), y > 0.5
        for k, name in enumerate(attributes.names):
            p = positive[:, k]
            if p.any() and not p.all():
                balanced = (right[p, k].mean() + right[~p, k].mean()) / 2
                print(f"  {name:<12} {p.float().mean():6.1%} have it, balanced accuracy {balanced:.3f}")


if __name__ == "__main__":
    main()
