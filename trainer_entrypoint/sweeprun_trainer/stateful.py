"""What training code may hand to a checkpointer, all of it with torch's two methods."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Optional, Protocol

import torch


class Stateful(Protocol):
    """A module, an optimizer, a scheduler, a scaler, an average of weights, a data loader: anything with torch's two
    methods.

    States are read back with `weights_only=True`: tensors, numbers, texts, lists, tuples and dictionaries.
    """

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def as_stateful(name: str, value: Any) -> Stateful:
    """A Stateful as it is; generators (torch.Generator, random.Random, numpy.random.Generator) and dictionaries of
    plain values, as positions and best results, are wrapped: they are set in place.

    Raises:
        TypeError: it has no state that could be put back.
    """
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        stateful: Stateful = value
        return stateful
    if isinstance(value, torch.Generator):
        return _TorchGenerator(value)
    if isinstance(value, random.Random):
        return _PythonGenerator(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return _NumpyGenerator(value)
    if isinstance(value, MutableMapping):
        return _Values(value)
    raise TypeError(
        f"{name!r} has no state_dict() and load_state_dict(), and a {type(value).__name__} cannot be set in place: put "
        "numbers into a dictionary, and hand over the dictionary"
    )


class _TorchGenerator:
    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> torch.Tensor:
        return self._generator.get_state()

    def load_state_dict(self, state_dict: torch.Tensor) -> None:
        self._generator.set_state(state_dict)


class _PythonGenerator:
    def __init__(self, generator: random.Random) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        return self._generator.getstate()

    def load_state_dict(self, state_dict: Any) -> None:
        version, internal, gauss = state_dict
        self._generator.setstate((version, tuple(internal), gauss))


class _NumpyGenerator:
    """Arrays in its state as lists of numbers: they would need NumPy's classes when they are read back."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        return _without_arrays(self._generator.bit_generator.state)

    def load_state_dict(self, state_dict: Any) -> None:
        self._generator.bit_generator.state = _with_arrays(state_dict)


def _without_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_arrays(part) for key, part in value.items()}
    if hasattr(value, "dtype"):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    return value


def _with_arrays(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"dtype", "values"}:
        import numpy

        return numpy.array(value["values"], dtype=value["dtype"])
    return {key: _with_arrays(part) for key, part in value.items()}


class _Values:
    def __init__(self, values: MutableMapping[Any, Any]) -> None:
        self._values = values

    def state_dict(self) -> dict[Any, Any]:
        return dict(self._values)

    def load_state_dict(self, state_dict: Mapping[Any, Any]) -> None:
        self._values.clear()
        self._values.update(state_dict)


class Buffers:
    """Those of a module that its state_dict holds. Data parallel training leaves other ones on every rank: each keeps
    what its own batches, or rank 0's of the last step, made of them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def state_dict(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for path, module in self._module.named_modules():
            kept = [name for name in module._buffers if name not in module._non_persistent_buffers_set]
            for name in kept:
                buffer = module._buffers[name]
                if buffer is not None:
                    found[f"{path}.{name}" if path else name] = buffer
        return found

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Raises KeyError where the module has other buffers."""
        mine = self.state_dict()
        different = sorted(mine.keys() ^ state_dict.keys())
        if different:
            raise KeyError(f"the buffer {different[0]} is in the checkpoint or in the module, and not in both")
        with torch.no_grad():
            for name, buffer in mine.items():
                buffer.copy_(state_dict[name])


class RandomState:
    """The generators that training code uses without naming them: random, torch, CUDA and, where it was imported,
    NumPy."""

    def __init__(self) -> None:
        self._loaded: Optional[Mapping[str, Any]] = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            name, keys, position, has_gauss, cached = numpy.random.get_state()
            # as plain numbers: arrays would need NumPy's classes when they are read back
            state["numpy"] = [name, torch.tensor(keys.tolist()), position, has_gauss, cached]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        torch.set_rng_state(state_dict["torch"])
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])
        if "numpy" in state_dict:
            import numpy

            name, keys, position, has_gauss, cached = state_dict["numpy"]
            numpy.random.set_state((name, keys.tolist(), position, has_gauss, cached))
        self._loaded = state_dict

    def load_again(self) -> None:
        """From memory: the volume may fail by now, on one rank alone."""
        if self._loaded is not None:
            self.load_state_dict(self._loaded)
