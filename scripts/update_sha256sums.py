"""Write data/weights/SHA256SUMS anew, after a shipped weights file was changed on purpose.

    python scripts/update_sha256sums.py [FOLDER]
"""

import sys

from s2flib.weights import update_sha256sums

if __name__ == "__main__":
    print(update_sha256sums(*sys.argv[1:2]))
