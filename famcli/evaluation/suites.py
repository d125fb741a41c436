"""Suites: tasks to run together. famcli's own, those in ``suites/`` of the current directory, and files of any name."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Any

from famcli.errors import UserError, printable, unknown_name
from famcli.evaluation.choice import TaskEntry
from famcli.fields import read_fields, read_yaml
from famcli.files import user_path

EXAMPLE = "for example tasks: [{task: passkey, options: {lengths: [1k, 4k]}, limit: 20}]; see docs/tasks.md"
"""A suite, for hints."""

FOLDER = Path("suites")
"""Where suites of one's own have a name."""
_ENDING = ".yaml"
_ENDINGS = (_ENDING, ".yml")
_PATHS = ("data", "background")
"""Options that are paths."""
_NO_PATHS = ("", "sample", "hub")
"""Of them: what is no path."""


@dataclass(frozen=True)
class Suite:
    """Tasks to run together, ``configs/suites/NAME.yaml`` or a file of one's own.

    Attributes:
        name: what the user types.
        summary: one line for listings; a suite of one's own may have none.
        entries: the tasks.
        models: the models to run them on, as a user would type them; none leaves them to the command.
        file: of one's own; ``None`` for one of famcli's.
    """

    name: str
    summary: str
    entries: tuple[TaskEntry, ...]
    models: tuple[str, ...] = ()
    file: Path | None = None


def list_suites(left_out: Callable[[str], None] = lambda message: None) -> list[Suite]:
    """famcli's suites by name, then one's own; ``left_out`` is told of each of the latter that cannot be used."""
    suites = [_read_suite(file, name) for name, file in sorted(_bundled().items())]
    for name, path in sorted(own_suites().items()):
        try:
            _check_name(name)
            suites.append(_read_suite(path, name, path))
        except UserError as error:
            left_out(f"left out: {error.message}")
    return suites


def find_suite(name: str) -> Suite:
    """The suite of a name, or of a file.

    Args:
        name: of a suite of famcli's or in ``suites/``; or a path, with a ``/`` in it or ``.yaml`` or ``.yml`` at its
            end.

    Raises:
        UserError: there is none, two have this name, or its file is not valid.
    """
    if os.sep in name or name.endswith(_ENDINGS):
        path = user_path(name)
        return _read_suite(path, name, path)
    bundled, own = _bundled(), own_suites()
    if name in own:
        _check_name(name)
        return _read_suite(own[name], name, own[name])
    if name not in bundled:
        unknown = unknown_name("suite", name, bundled.keys() | own.keys())
        beside = [file for ending in _ENDINGS if os.path.isfile(file := f"{name}{ending}")]
        raise UserError(unknown.message, f"did you mean the file? --suite {beside[0]}") if beside else unknown
    return _read_suite(bundled[name], name)


def _bundled() -> dict[str, Traversable]:
    folder = importlib.resources.files("famcli.configs") / "suites"
    return {file.name.removesuffix(_ENDING): file for file in folder.iterdir() if file.name.endswith(_ENDING)}


def own_suites() -> dict[str, Path]:
    """Files in ``suites/`` by name; raises ``UserError`` where the folder cannot be read."""
    try:
        names = os.listdir(FOLDER) if FOLDER.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {FOLDER}: {error.strerror}") from error
    return {name.removesuffix(_ENDING): FOLDER / name for name in names if _is_suite(name)}


def _is_suite(name: str) -> bool:
    return name.endswith(_ENDING) and not name.startswith(".")


def _check_name(name: str) -> None:
    if name in _bundled():
        raise UserError(
            f"two suites are called '{name}': one of famcli's own, and {FOLDER / name}{_ENDING}",
            f"give the file another name, or its path: --suite {FOLDER / name}{_ENDING}",
        )


Value = str | int | float | bool


@dataclass(frozen=True)
class _EntryFile:
    task: str
    options: dict[str, Value | list[Value]] = field(default_factory=dict)
    data: str | None = None
    limit: int | None = None
    limit_documents: int | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "limit_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"'{name}' must be at least 1, not {value}")
        if self.data is not None and "data" in self.options:
            raise UserError("the data is given twice, in 'data' and in 'options'", "leave out either of them")


@dataclass(frozen=True)
class _SuiteFile:
    tasks: tuple[_EntryFile, ...]
    summary: str = ""
    models: list[str] = field(default_factory=list)


def _read_suite(file: Traversable, name: str, own: Path | None = None) -> Suite:
    where = f"suite {own or file.name}"
    try:
        values = read_yaml(file, where, "famcli list tasks has the names of suites")
        _check_brackets(values, where)
        found = read_fields(_SuiteFile, values, where)
    except UserError as error:
        raise UserError(error.message, error.hint or EXAMPLE) from error
    folder = own.parent if own else None
    entries = tuple(
        TaskEntry(entry.task, dict(_options(entry, folder)), entry.limit, entry.limit_documents, name)
        for entry in found.tasks
    )
    models = tuple(_model(model, folder) if folder else model for model in dict.fromkeys(found.models))
    return Suite(name, found.summary, entries, models, own)


def _check_brackets(values: Any, where: str) -> None:
    """``{lengths: 1k,4k}`` is to YAML an option ``4k`` that has no value; raises ``UserError`` with what was meant."""
    entries = values.get("tasks") if isinstance(values, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        options = entry.get("options") if isinstance(entry, dict) else None
        if not isinstance(options, dict):
            continue
        for name, value in options.items():
            listed = _listed(options, name)
            if value is not None and len(listed) > 1:
                raise UserError(
                    f"{where}: option '{printable(str(name))}' has several values, which are no list",
                    printable(f"a list stands in brackets: {name}: [{', '.join(map(str, listed))}]"),
                )


def _listed(options: Mapping[Any, Any], name: Any) -> list[Any]:
    """The value of an option, and the keys without a value that follow it."""
    names = list(options)
    behind = names[names.index(name) + 1 :]
    return [options[name], *takewhile(lambda key: options[key] is None, behind)]


def _options(entry: _EntryFile, folder: Path | None) -> Iterator[tuple[str, str]]:
    """Names and values as a user would type them."""
    given = entry.options if entry.data is None else {**entry.options, "data": entry.data}
    for name, value in given.items():
        text = ",".join(map(_typed, value)) if isinstance(value, list) else _typed(value)
        yield name, _data(text, folder) if name in _PATHS and folder else text


def _typed(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(text: str, folder: Path) -> str:
    """What ``--data`` takes; paths are those from the suite's file on. One that is there may have commas in it."""
    if text.strip() in _NO_PATHS:
        return text
    whole = _from(folder, text)
    if "," not in text or user_path(whole).exists():
        return whole
    return ",".join(_from(folder, part) for part in text.split(","))


def _model(spec: str, folder: Path) -> str:
    """A model and its adapter, where they are paths, from the suite's file on. A preset's name comes first."""
    from famcli.checkpoints.registry import list_presets

    name, *fields = spec.split(",")
    is_path = name.startswith(".") or os.path.exists(_from(folder, name))
    if is_path and name not in {preset.name for preset in list_presets()}:
        name = _from(folder, name)
    pairs = (text.partition("=") for text in fields)
    return ",".join(
        [name, *(f"{key}{eq}{_from(folder, v) if key.strip() == 'adapter' else v}" for key, eq, v in pairs)]
    )


def _from(folder: Path, text: str) -> str:
    """A path that a file in ``folder`` names, as one would type it; it never looks like the name of a preset.

    Raises:
        UserError: it has a null character, as no path can.
    """
    text = text.strip()
    if "\0" in text:
        raise UserError(f"a suite in {folder}: '{printable(text)}' cannot be a path: it has a null character in it")
    if not text or text.startswith("~") or os.path.isabs(text):
        return text
    joined = os.path.join(folder, text)
    short = os.path.normpath(joined)
    if os.path.realpath(short) != os.path.realpath(joined):  # a link stands before ..
        short = joined
    return short if os.sep in short else os.path.join(".", short)
