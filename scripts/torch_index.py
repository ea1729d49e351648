"""Print pip's option for PyTorch's CPU wheels on a Linux machine without an NVIDIA device; else print nothing.

On Linux, the default index's wheels bring CUDA's libraries: gigabytes that a machine without a GPU never uses. `make`
calls this before it installs, unless PIP_ARGS says something. Only the standard library: nothing is installed yet.
"""

from __future__ import annotations

import platform
import shutil
import urllib.request
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
DEVICES = ("/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg")  # the last one: a GPU under WSL


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA device, or might have one."""
    return shutil.which("nvidia-smi") is not None or any(Path(device).exists() for device in DEVICES)


def offered(seconds: float = 5) -> bool:
    """Whether the index of CPU wheels can be reached; behind a mirror it often cannot."""
    try:
        with urllib.request.urlopen(f"{INDEX}/torch/", timeout=seconds) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def options() -> str:
    if platform.system() != "Linux" or has_nvidia() or not offered():
        return ""
    return f"--extra-index-url {INDEX}"


if __name__ == "__main__":
    print(options())
