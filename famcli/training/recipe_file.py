"""Recipes as YAML files, checked field by field before anything starts."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from famcli.errors import UserError, unknown_name
from famcli.models.config import ModelConfig
from famcli.training.recipe import Recipe


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        UserError: the file is missing or not YAML, or a field is unknown, missing or not of its type.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe at {path}", "see configs/recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    return _build(Recipe, fields, str(path))


Part = TypeVar("Part")


def _build(kind: type[Part], fields: Any, where: str) -> Part:
    """An instance of the dataclass ``kind`` from a mapping, checked field by field."""
    if not isinstance(fields, Mapping):
        raise UserError(f"{where} must be a mapping of fields, not {type(fields).__name__}")
    hints = get_type_hints(kind)
    values = {}
    for name, value in fields.items():
        if name not in hints:
            raise unknown_name(f"field in {where}:", str(name), hints)
        values[name] = _value(hints[name], value, f"{where}: {name}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks the field{'s' * (len(missing) > 1)} {', '.join(missing)}")
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):  # of a type and None
        return None if value is None else _value(get_args(hint)[0], value, where)
    if hint is ModelConfig:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a mapping of fields, not {type(value).__name__}")
        return ModelConfig.from_mapping(value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value:
            raise UserError(f"{where} must be a list with at least one entry")
        return tuple(_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"{where} must be one of {', '.join(get_args(hint))}, not '{value}'")
        return value
    if hint is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where} must be true or false, not '{value}'")
        return value
    return _number(hint, value, where)


def _number(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str) and re.fullmatch(r"[0-9.]+e[+-]?[0-9]+", value):
        value = float(value)  # what YAML 1.1 takes for text: 1e-5
    if isinstance(value, bool) or not isinstance(value, (int, float) if hint is float else int):
        raise UserError(f"{where} must be a {'number' if hint is float else 'whole number'}, not '{value}'")
    if not 0 <= value < float("inf"):
        raise UserError(f"{where} must not be negative, not {value}" if value < 0 else f"{where} must be finite")
    return hint(value)
