"""Objects whose tensors are cut over the ranks, as `fully_shard` cuts them: what of them goes where.

Tensors that know how they are cut (DTensor) are saved by torch.distributed.checkpoint, each part by one rank that holds
it, and can be read by another number of ranks. All else of the same objects (buffers, which differ from rank to rank,
step counts, groups of parameters) goes into a file of each rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.tensor import DTensor

from .stateful import Stateful, as_stateful

Path = tuple[Any, ...]
"""Keys and positions that lead to a part of a state."""


class ShardedState:
    """The objects by name. Optimizers are named by their parameters, not by numbers; their modules are here too."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        modules = [value for value in objects.values() if isinstance(value, torch.nn.Module)]
        self._objects: dict[str, Stateful] = {
            name: _ShardedOptimizer(name, value, modules)
            if isinstance(value, torch.optim.Optimizer)
            else as_stateful(name, value)
            for name, value in objects.items()
        }
        self.names = tuple(objects)

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(tensors that are cut, by unique keys; the rest, by the names of the objects)."""
        tensors: dict[str, Any] = {}
        rests: dict[str, Any] = {}
        for name, stateful in self._objects.items():
            cut: dict[Path, Any] = {}
            tree = _without_cut(stateful.state_dict(), (), cut)
            rests[name] = {"tree": tree, "cut": list(cut)}
            for path, tensor in cut.items():
                key = _key(name, path)
                if key in tensors:
                    raise ValueError(f"two parts of the state are called {key}")
                tensors[key] = tensor
        return tensors, rests

    def join(self, tensors: Mapping[str, Any], rests: Mapping[str, Any]) -> None:
        """Load what was split; `tensors` hold what was read, under the keys of split()."""
        for name, stateful in self._objects.items():
            tree = rests[name]["tree"]
            for path in rests[name]["cut"]:
                tree = _put(tree, tuple(path), tensors[_key(name, tuple(path))])
            stateful.load_state_dict(tree)

    def check(self, tensors: Mapping[str, Any], rests: Mapping[str, Any]) -> None:
        """Raises ValueError where the saved objects are cut elsewhere than those of this script."""
        saved = {_key(name, tuple(path)) for name, rest in rests.items() for path in rest["cut"]}
        different = sorted(saved.symmetric_difference(tensors))
        if different:
            raise ValueError(f"{different[0]} is sharded in the checkpoint or here, and not in both")


class _ShardedOptimizer:
    def __init__(self, name: str, optimizer: torch.optim.Optimizer, modules: list[torch.nn.Module]) -> None:
        mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        owners = [module for module in modules if mine <= {id(parameter) for parameter in module.parameters()}]
        if not owners:
            raise ValueError(f"{name!r} is an optimizer of no module among the sharded objects: add its module")
        self._optimizer, self._module = optimizer, owners[0]

    def state_dict(self) -> Any:
        return get_optimizer_state_dict(self._module, self._optimizer)

    def load_state_dict(self, state_dict: Any) -> None:
        set_optimizer_state_dict(self._module, self._optimizer, state_dict)


def _key(name: str, path: Path) -> str:
    return "/".join((name, *(str(part) for part in path)))


def _without_cut(value: Any, path: Path, cut: dict[Path, Any]) -> Any:
    """The same tree with None in place of every tensor that is cut; those go into `cut`."""
    if isinstance(value, DTensor):
        cut[path] = value
        return None
    if isinstance(value, Mapping):
        return {key: _without_cut(part, (*path, key), cut) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_cut(part, (*path, number), cut) for number, part in enumerate(value))
    return value


def _put(tree: Any, path: Path, tensor: Any) -> Any:
    if not path:
        return tensor
    first, rest = path[0], path[1:]
    if isinstance(tree, tuple):
        return tuple(_put(part, rest, tensor) if number == first else part for number, part in enumerate(tree))
    tree[first] = _put(tree[first], rest, tensor)
    return tree
