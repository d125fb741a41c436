"""Fields from YAML, JSON and the command line, read into what a class says of them.

``read_fields`` makes a dataclass or a ``TypedDict`` of a mapping, ``parse_value`` one value of a type hint. An error
names the place (``recipe.yaml: field 'phases[0].steps'``), what the field must be, and the closest names that exist.
``read_pairs`` gets the mapping from a command line, ``read_json`` and ``read_yaml`` of ``famcli.content`` from files.
``parse_lengths`` reads numbers of tokens as people type them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from famcli.content import INT_BITS, encodable, from_json, read_json, read_yaml
from famcli.errors import UserError, closest, printable, unknown_name

__all__ = [
    "LARGEST",
    "LONGEST",
    "from_json",
    "parse_lengths",
    "parse_value",
    "read_fields",
    "read_json",
    "read_pairs",
    "read_yaml",
    "whole_number",
]

LARGEST = 1e100
"""Of numbers, either way: nothing that is measured comes near it, and sums and squares of such numbers stay finite."""

_NONE = ("none", "null")
_TRUTH = {"true": True, "false": False}
_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

T = TypeVar("T")


def read_fields(
    kind: type[T], values: Any, where: str, *, text: bool = False, others: bool = False, least: float | None = None
) -> T:
    """An instance of ``kind`` from a mapping, checked field by field.

    A nested class that has a method ``from_mapping(fields, where)`` is made by it. Where the class itself refuses its
    values with a ``UserError``, the place is put in front of the message. ``tuple[X, ...]`` wants at least one entry,
    ``list[X]`` may be empty.

    Args:
        kind: a dataclass or a ``TypedDict``.
        values: what was read.
        where: what errors name as the place, for instance a file.
        text: values may be typed on a command line: ``"256"`` is a number, ``"none"`` is ``None``, ``"true"`` is true.
        others: there may be fields that ``kind`` does not have. A dataclass is made without them, a dict keeps them.
        least: the smallest number that is allowed.

    Raises:
        UserError: a field is unknown, missing, or not of its type.
    """
    read: T = _Reader(where, text, others, least).fields(kind, values, "")
    return read


def parse_value(value: Any, hint: Any, name: str, where: str, *, text: bool = False, others: bool = False) -> Any:
    """``value`` as the type hint ``hint`` asks for.

    ``hint`` may be made of ``int``, ``float``, ``bool``, ``str``, ``None``, ``Any``, ``Literal``, unions,
    ``tuple[X, ...]``, ``list[X]``, ``dict[str, X]``, ``Mapping[str, X]``, dataclasses and ``TypedDict``; of any other
    class the value must be an instance already. Whole numbers have at most 64 bits, numbers are finite, ``True`` is no
    number.

    Args:
        value: what was read.
        hint: the type.
        name: of the field, for errors.
        where: see ``read_fields``.
        text: see ``read_fields``.
        others: see ``read_fields``.

    Raises:
        UserError: it cannot be that.
    """
    return _Reader(where, text, others, least=None).value(hint, value, name)


class _Shape(NamedTuple):
    hints: Mapping[str, Any]
    required: tuple[str, ...]


@cache
def _shape(kind: Any) -> _Shape:
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return _Shape(hints, tuple(name for name in hints if name in kind.__required_keys__))
    known = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    required = [field.name for field in known if field.default is missing and field.default_factory is missing]
    return _Shape({field.name: hints[field.name] for field in known}, tuple(required))


@dataclass(frozen=True)
class _Reader:
    """The arguments of ``read_fields``; ``path`` is that of a field from the outermost mapping, ``a.b[0].c``."""

    where: str
    text: bool
    others: bool
    least: float | None

    def place(self, path: str) -> str:
        return f"{self.where}, field '{path}'" if path else self.where

    def wrong(self, path: str, must: str, value: Any, hint: str | None = None) -> UserError:
        about = f"{self.where}: field '{path}'" if path else self.where
        return UserError(f"{about} must be {must}, not {_shown(value)}", hint)

    def fields(self, kind: Any, values: Any, path: str) -> Any:
        if not isinstance(values, Mapping):
            raise self.wrong(path, "a mapping of fields", values)
        shape = _shape(kind)
        read = {}
        for name, value in values.items():
            if name in shape.hints:
                read[name] = self.value(shape.hints[name], value, _inside(path, name))
            elif not self.others:
                raise unknown_name(f"field in {self.place(path)}:", str(name), shape.hints)
            elif is_typeddict(kind):
                read[name] = value
        missing = [f"'{_inside(path, name)}'" for name in shape.required if name not in read]
        if missing:
            raise UserError(f"{self.where} lacks the field{'s' * (len(missing) > 1)} {', '.join(missing)}")
        try:
            return kind(**read)
        except UserError as error:
            raise UserError(f"{self.place(path)}: {error.message}", error.hint) from None

    def value(self, hint: Any, value: Any, path: str, or_none: str = "") -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._union(arguments, value, path)
        if origin is Literal:
            return self._choice(arguments, value, path, or_none)
        if hint in _SCALARS:
            return self._scalar(hint, value, path, or_none)
        if dataclasses.is_dataclass(hint) or is_typeddict(hint):
            if not isinstance(value, Mapping):
                raise self.wrong(path, "a mapping of fields" + or_none, value)
            own: Callable[..., Any] | None = getattr(hint, "from_mapping", None)
            return own(value, self.place(path)) if own else self.fields(hint, value, path)
        if origin in (list, tuple):
            if not isinstance(value, list | tuple) or (origin is tuple and not value):
                raise self.wrong(path, f"a list{' with at least one entry' * (origin is tuple)}{or_none}", value)
            return origin(self.value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        if origin in (dict, Mapping):
            if not isinstance(value, Mapping) or not all(isinstance(name, str) and encodable(name) for name in value):
                raise self.wrong(path, f"a mapping of names{or_none}", value)
            return {name: self.value(arguments[1], item, _inside(path, name)) for name, item in value.items()}
        if not isinstance(value, hint):
            raise self.wrong(path, f"of type {hint.__name__}{or_none}", value)
        return value

    def _union(self, hints: tuple[Any, ...], value: Any, path: str) -> Any:
        others = [hint for hint in hints if hint is not types.NoneType]
        or_none = " or none" if len(others) < len(hints) else ""
        if or_none and (value is None or (self.text and value in _NONE)):
            return None
        if len(others) == 1:
            return self.value(others[0], value, path, or_none)
        for hint in others:
            with contextlib.suppress(UserError):
                return self.value(hint, value, path)
        names = [_SCALARS.get(hint) or getattr(get_origin(hint) or hint, "__name__", str(hint)) for hint in others]
        raise self.wrong(path, " or ".join(names) + or_none, value)

    def _choice(self, choices: tuple[Any, ...], value: Any, path: str, or_none: str) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        near = closest(value, map(str, choices)) if isinstance(value, str) else None
        raise self.wrong(path, f"one of {', '.join(map(str, choices))}{or_none}", value, near)

    def _scalar(self, hint: type[Any], value: Any, path: str, or_none: str) -> Any:
        must = _SCALARS[hint] + or_none
        if hint is str:
            if not isinstance(value, str):
                raise self.wrong(path, must, value)
            if not encodable(value):
                raise self.wrong(path, "text without halves of characters", value)
            return value
        if hint is bool:
            if self.text and isinstance(value, str):
                value = _TRUTH.get(value.lower(), value)
            if not isinstance(value, bool):
                raise self.wrong(path, must, value)
            return value
        number = self._number(hint, value)
        if number is None:
            raise self.wrong(path, must, value, _in_digits(value) if hint is int else None)
        if isinstance(number, float) and not math.isfinite(number):
            raise self.wrong(path, "finite", value)
        if isinstance(number, int) and number.bit_length() >= INT_BITS:
            raise self.wrong(path, f"a whole number of at most {INT_BITS} bits", value)
        if abs(number) > LARGEST:
            raise self.wrong(path, f"a number between {-LARGEST:g} and {LARGEST:g}", value)
        if self.least is not None and number < self.least:
            raise self.wrong(path, f"at least {self.least:g}", value)
        return number

    def _number(self, hint: type[Any], value: Any) -> int | float | None:
        """``value`` as an ``int`` or a ``float``; ``None`` where it is none."""
        allowed: tuple[type, ...] = (int,) if hint is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, (*allowed, str) if self.text else allowed):
            return None
        try:
            return hint(value)  # type: ignore[no-any-return]
        except ValueError:
            return None
        except OverflowError:
            return math.inf


def _in_digits(value: Any) -> str | None:
    """What to write for ``4k``, which is a number where lengths are asked for alone."""
    try:
        (length,) = parse_lengths(value) if isinstance(value, str) else ()
    except ValueError:
        return None
    return f"in digits: {length}"


def _inside(path: str, name: str) -> str:
    name = printable(name)
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    """A value as a message shows it, short whatever it is."""
    if isinstance(value, str):
        return f"'{printable(value)}'"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return printable(_SHORT.repr(value))


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # a YAML file may name one part many times, so that the whole is too long to write


def read_pairs(given: Iterable[str], what: str, form: str, example: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` -> ``{"a": "1", "b": "2"}``.

    Args:
        given: as typed on a command line.
        what: an error calls each of them.
        form: what it should look like, for instance ``KEY=VALUE``.
        example: a right one.

    Raises:
        UserError: one has no name or no ``=``, or a name is there twice.
    """
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UserError(f"{what} '{printable(text)}' is not {form}", f"for example {example}")
        if name in pairs:
            raise UserError(f"{what} '{printable(name)}' is given twice", "give it once")
        pairs[name] = value
    return pairs


LONGEST = 1 << 27
"""Most tokens of a text: as token ids it takes a gigabyte."""
_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_lengths(text: str) -> tuple[int, ...]:
    """``1k,64k,1M,5000`` as sorted numbers of tokens without repetition; k is 1024, M is 1048576.

    Raises:
        ValueError: it is something else; says what it must be.
    """
    parts = [re.fullmatch(r"([0-9]+)([km]?)", part.strip().lower()) for part in text.split(",")]
    lengths = {whole_number(part[1]) * _UNITS[part[2]] for part in parts if part}
    if not all(parts) or 0 in lengths:
        raise ValueError("numbers of tokens such as 1k,64k,1M or 5000")
    if max(lengths) > LONGEST:
        raise ValueError(f"numbers of tokens of at most {LONGEST // _UNITS['m']}M")
    return tuple(sorted(lengths))


def whole_number(digits: str) -> int:
    """What the digits say, or more than anything may be: thousands of digits are no number to Python."""
    return int(digits) if len(digits) < 20 else 10**20
