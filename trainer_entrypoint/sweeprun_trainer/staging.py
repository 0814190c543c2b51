"""A copy of a state in the memory of the CPU, which training may not change while it is written."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

_Seen = dict[Any, torch.Tensor]


class StagingCopy:
    """Tensors that share their memory, as tied weights do, are copied once."""

    def __init__(self) -> None:
        self._copies: _Seen = {}
        self.bytes = 0

    def of(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        kind = type(value)
        if kind in (dict, OrderedDict):
            return kind((key, self.of(part)) for key, part in value.items())
        if kind in (list, tuple):
            return kind(self.of(part) for part in value)
        return value  # whatever else may be in a state cannot be changed in place, or is refused when it is written

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        # whole DTensors are distinct objects already, and have no address of their own
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if plain else id(tensor)
        copy = self._copies.get(place)
        if copy is None:
            copy = tensor.detach().to("cpu", copy=True)
            self._copies[place] = copy
            self.bytes += copy.numel() * copy.element_size()
        return copy
