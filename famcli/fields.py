"""Fields from YAML, JSON and the command line, read into what a class says of them.

``read_fields`` makes a dataclass or a ``TypedDict`` of a mapping, ``parse_value`` one value of a type hint. An error
names the place (``recipe.yaml: field 'phases[0].steps'``), what the field must be, and the closest names that exist.
``read_json``, ``read_yaml`` and ``read_pairs`` get the mapping.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
import math
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from famcli.errors import UserError, closest, printable, unknown_name
from famcli.inputs import check_encoding, check_file

DEEPEST = 100
"""Most lists and mappings inside one another in a file: no file of ours comes near it."""
LARGEST_JSON, LARGEST_YAML = 1 << 28, 1 << 20
"""Most bytes of a file."""

_INT_BITS = 64
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


def parse_value(value: Any, hint: Any, name: str, where: str, *, text: bool = False) -> Any:
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

    Raises:
        UserError: it cannot be that.
    """
    return _Reader(where, text, others=False, least=None).value(hint, value, name)


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
            if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
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
            if not _encodable(value):
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
            raise self.wrong(path, must, value)
        if isinstance(number, float) and not math.isfinite(number):
            raise self.wrong(path, "finite", value)
        if isinstance(number, int) and number.bit_length() >= _INT_BITS:
            raise self.wrong(path, f"a whole number of at most {_INT_BITS} bits", value)
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


def _inside(path: str, name: str) -> str:
    name = printable(name)
    return f"{path}.{name}" if path else name


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value as a message shows it, short whatever it is."""
    if isinstance(value, str):
        return f"'{printable(value)}'"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return printable(_SHORT.repr(value))


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # a YAML file may name one part many times, so that the whole is too long to write


def read_json(file: Traversable, where: str | None = None, hint: str | None = None, *, nan: bool = False) -> Any:
    """The JSON object in a file.

    Args:
        file: its path.
        where: what errors call it; the path if ``None``.
        hint: what to do where there is no such file.
        nan: ``NaN`` and ``Infinity``, which are no JSON, are numbers: other programs write them.

    Raises:
        UserError: the file is missing, too large, no JSON, or holds no object.
    """
    where = where or str(file)
    try:
        content = from_json(_content(file, where, hint, LARGEST_JSON), nan=nan)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} must hold a JSON object")
    return content


def from_json(content: str | bytes, *, nan: bool = False) -> Any:
    """What JSON in UTF-8 says, see ``read_json``.

    Raises:
        ValueError: it is no JSON, names a field twice, or is nested deeper than ``DEEPEST``.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=None if nan else _no_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


_TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"field '{printable(double)}' is there twice")
    return fields


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _check_depth(value: Any) -> None:
    """Level by level, so that neither depth nor a part that stands in many places costs anything."""
    level = [value]
    for _ in range(DEEPEST):
        parts = (part for whole in level for part in (whole.values() if isinstance(whole, dict) else whole))
        level = list({id(part): part for part in parts if isinstance(part, list | dict)}.values())
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def read_yaml(file: Traversable, where: str | None = None, hint: str | None = None) -> Any:
    """What a YAML file holds: plain values alone, numbers such as ``1e-5`` among them.

    Args:
        file: its path.
        where: what errors call it; the path if ``None``.
        hint: what to do where there is no such file.

    Raises:
        UserError: the file is missing, too large or no YAML, or names a field twice.
    """
    import yaml

    where = where or str(file)
    try:
        value = yaml.load(_content(file, where, hint, LARGEST_YAML).decode("utf-8"), _yaml_loader())
        if isinstance(value, list | dict):
            _check_depth(value)
        return value
    except RecursionError:
        raise UserError(f"{where} is not valid YAML: {_TOO_DEEP}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where} is not valid YAML: {line}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that is none, bytes that are no UTF-8
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


@cache
def _yaml_loader() -> Any:
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        problem = f"field '{printable(key.value)}' is there twice"
                        raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    # YAML 1.1, which PyYAML reads, takes 1e-5 for text: it wants a point and a sign.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
    )
    return Loader


def _content(file: Traversable, where: str, hint: str | None, most: int) -> bytes:
    if isinstance(file, Path):
        check_file(file)
    try:
        with file.open("rb") as opened:
            content: bytes = opened.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{where} is missing", hint) from None
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{where} has more than {most >> 20} MiB: that is none of famcli's files")
    check_encoding(content, where)
    return content.removeprefix(codecs.BOM_UTF8)


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
            raise UserError(f"{what} '{printable(name)}' is given twice")
        pairs[name] = value
    return pairs
