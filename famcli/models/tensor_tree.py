"""What another library keeps of a stream, taken as a tree: its tensors are mapped, listed, and put back.

A cache of ``transformers`` is an object of layers, each with tensors, numbers and truth values. Nothing is asked of it
but that: whatever kind of layer it is, its copy is an object of the same kind with copies of the same tensors.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Number = int | float | bool | None
_KEPT = (int, float, complex, str, bytes, bool, types.NoneType, torch.dtype, torch.device, type)
"""Values that nobody changes in place: a copy has the same."""


class NotATree(Exception):
    """It holds something other than objects, tensors and plain values."""


def map_tensors(tree: Any, change: Callable[[Tensor], Tensor], package: str) -> Any:
    """A copy of ``tree`` with ``change`` made to each tensor; one that is there twice is changed once.

    Args:
        tree: tensors in lists, mappings, and objects whose classes are of ``package``.
        change: gives a tensor of its own.
        package: objects of other packages are no part of a tree.

    Raises:
        NotATree: something else is in it.
    """
    return _Copier(change, package).of(tree)


class _Copier:
    def __init__(self, change: Callable[[Tensor], Tensor], package: str) -> None:
        self.change, self.package = change, package
        self._done: dict[int, tuple[Any, Any]] = {}  # with what it was made of, so that no id is used again

    def of(self, value: Any) -> Any:
        if isinstance(value, _KEPT):
            return value
        if id(value) in self._done:
            return self._done[id(value)][1]
        made: Any
        if isinstance(value, Tensor):
            made = self.change(value)
        elif type(value) in (list, tuple, set):
            made = type(value)(self.of(item) for item in value)
        elif isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
            made = copy.copy(value)
            made.update({name: self.of(item) for name, item in value.items()})
        elif _is_part(value, self.package):
            made = copy.copy(value)
            vars(made).update({name: self.of(item) for name, item in vars(value).items()})
        else:
            raise NotATree(f"a {type(value).__module__}.{type(value).__name__}")
        self._done[id(value)] = (value, made)
        return made


def leaves(tree: Any, package: str) -> Iterator[tuple[str, Tensor | Number]]:
    """Tensors and numbers by their place, such as ``layers.0.keys``; what stands in two places is there twice."""
    yield from _leaves(tree, "", package)


def _leaves(value: Any, path: str, package: str) -> Iterator[tuple[str, Tensor | Number]]:
    if isinstance(value, Tensor | int | float | types.NoneType):
        yield path, value
    for name, item in _items(value, package):
        yield from _leaves(item, f"{path}.{name}" if path else name, package)


def with_leaves(tree: Any, values: Mapping[str, Tensor | Number], package: str) -> Any:
    """``tree`` with other tensors and numbers in the same places; the tree is changed.

    Raises:
        NotATree: the places are not those of ``tree``.
    """
    if dict(leaves(tree, package)).keys() != values.keys():
        raise NotATree("its places are others")
    _put(tree, "", values, package)
    return tree


def _put(value: Any, path: str, values: Mapping[str, Tensor | Number], package: str) -> None:
    for name, item in list(_items(value, package)):
        place = f"{path}.{name}" if path else name
        if place not in values:
            _put(item, place, values, package)
        elif isinstance(value, list):
            value[int(name)] = values[place]
        elif isinstance(value, dict):
            value[next(key for key in value if str(key) == name)] = values[place]
        elif isinstance(value, tuple | set):
            raise NotATree(f"a {type(value).__name__} of tensors")
        else:
            vars(value)[name] = values[place]


def _items(value: Any, package: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((str(name), item) for name, item in value.items())
    elif _is_part(value, package):
        yield from vars(value).items()


def _is_part(value: Any, package: str) -> bool:
    """An object of the package that holds its values in plain sight; its configurations hold no state."""
    kind = type(value)
    inside = kind.__module__.partition(".")[0] == package and hasattr(value, "__dict__")
    return inside and not isinstance(value, type | types.FunctionType | torch.nn.Module)
