"""The memory of a training step: the tensors that autograd saves for the backward pass, counted on any device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class SavedTensors:
    """``with SavedTensors(parameters) as saved: loss = …`` counts the bytes that the graph holds: ``saved.bytes``.

    A storage counts once however many tensors share it; parameters do not count. What activation checkpointing keeps of
    its own, the inputs of each part, is held outside of autograd's tensors and does not count either.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()):
        self.bytes = 0
        self._seen = {_storage(p) for p in parameters}
        self._kept: list[Tensor] = []  # an address stays that of its storage as long as it is kept
        self._hooks: Any = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._seen:
            self._seen.add(_storage(tensor))
            self._kept.append(tensor.detach())
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        self._kept.clear()


def _storage(tensor: Tensor) -> int:
    """An address of its own for every storage, also on the meta device, where there is no data."""
    return tensor.untyped_storage()._cdata
