"""Weights: where they are stored, how they are downloaded and verified, and how they are read without running code.

``load`` (shipped and trained files), ``registry`` and ``download`` (published files), ``published`` (their layouts).
"""

from s2flib.weights.load import (
    fingerprint,
    load_generator,
    load_ir_se50,
    load_psp,
    load_tensors,
    safe_load,
    save_psp,
    save_safetensors,
    update_sha256sums,
    verify_shipped,
)
from s2flib.weights.registry import REGISTRY, fetch
