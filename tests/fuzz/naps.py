"""A kind for the test of the runner: one case hangs, one crashes, one is fine."""

import os
import time
from pathlib import Path


def check(seed: int, folder: Path) -> str | None:
    if seed == 0:
        time.sleep(60)
    if seed == 1:
        os.abort()
    return None
