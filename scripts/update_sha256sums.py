"""Write data/weights/SHA256SUMS anew, after a shipped weights file was changed on purpose.

    python scripts/update_sha256sums.py [FOLDER]

Pipelines in diffusers' layout (folders with a model_index.json) get a SHA256SUMS of their own, over all their files.
"""

import sys

from s2flib.stylize.pipeline import update_all_sums

if __name__ == "__main__":
    print(*update_all_sums(*sys.argv[1:2]), sep="\n")
