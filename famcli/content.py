"""JSON and YAML files, read whole: what they hold is no deeper and no larger than what can be worked with.

Anything may stand in the place of a file, or in it: whatever is wrong is one ``UserError`` that names the file.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from famcli.errors import UserError, printable
from famcli.files import open_regular, target_of
from famcli.inputs import check_encoding

DEEPEST = 100
"""Most lists and mappings inside one another in a file: no file of ours comes near it."""
INT_BITS = 64
"""Of whole numbers, with their sign."""
LARGEST_JSON, LARGEST_YAML = 1 << 28, 1 << 20
"""Most bytes of a file."""

_SUSPECT = re.compile(r"[:\[,]\s*-?(?:\d{19}|[\d.]+[eE]\+?\d{3})|\\u[dD][89a-fA-F]")
"""What a number too large, or half of a character, looks like: few files have any, so that few are gone through."""
_TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"


def read_json(file: Traversable, where: str | None = None, hint: str | None = None, *, nan: bool = False) -> Any:
    """The JSON object in a file.

    Args:
        file: its path.
        where: what errors call it; the path if ``None``.
        hint: what to do where there is no such file.
        nan: see ``from_json``.

    Raises:
        UserError: the file is missing, no file, too large, no JSON, or holds no object.
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
    """What JSON in UTF-8 says.

    Args:
        content: the text.
        nan: other programs wrote it: ``NaN`` and ``Infinity``, which are no JSON, are numbers; any number may be of any
            size, and text may hold halves of characters.

    Raises:
        ValueError: it is no JSON, names a field twice, is nested deeper than ``DEEPEST``, or, without ``nan``,
            holds a number of more than 64 bits or half of a character.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=None if nan else _no_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    if not nan and _SUSPECT.search(text):
        _check_parts(value)
    return value


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


def _check_parts(value: Any) -> None:
    for part in _parts(value):
        if isinstance(part, str):
            if not encodable(part):
                raise ValueError(f"'{printable(part)}' holds half of a character")
        elif isinstance(part, float):
            if not math.isfinite(part):
                raise ValueError("it holds a number too large for any machine")
        elif isinstance(part, int) and part.bit_length() >= INT_BITS:
            raise ValueError(f"it holds a whole number of more than {INT_BITS} bits")


def _parts(value: Any) -> Iterator[Any]:
    """All values and names of fields, at any depth."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from _parts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def encodable(text: str) -> bool:
    """Whether UTF-8 can spell it: it has no halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        value = yaml.load(_content(file, where, hint, LARGEST_YAML, pipes=True).decode("utf-8"), _yaml_loader())
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


def _content(file: Traversable, where: str, hint: str | None, most: int, pipes: bool = False) -> bytes:
    """The bytes of a file; of a pipe only where a person may have given one, as ``<(...)`` of a shell."""
    try:
        is_pipe = pipes and isinstance(file, Path) and target_of(file).descriptor
        with open_regular(file) if isinstance(file, Path) and not is_pipe else file.open("rb") as opened:
            content: bytes = opened.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{where} is missing", hint) from None
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{where} has more than {most >> 20} MiB: that is none of famcli's files")
    check_encoding(content, where)
    return content.removeprefix(codecs.BOM_UTF8)
