"""Rewrite data/weights/SHA256SUMS after an intended change of a shipped weights file.

    python scripts/update_sha256sums.py [FOLDER]

Pipelines in diffusers' layout (folders with a model_index.json) get their own SHA256SUMS of all their files.
"""

import sys

from s2flib.instruct_pix2pix.pipeline import update_all_sums

if __name__ == "__main__":
    print(*update_all_sums(*sys.argv[1:2]), sep="\n")
