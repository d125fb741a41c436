"""``--plugin PATH``: the tasks, models and memories of a file or a folder, known as if an installed package had them.

They are offered as a distribution of its own to ``importlib.metadata``, where all plugins are looked for.
"""

from __future__ import annotations

import inspect
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from famcli.checkpoints.sources import ENTRY_POINT_GROUP as MODELS
from famcli.checkpoints.sources import PluginSource
from famcli.errors import UserError
from famcli.files import SOURCE_SHA256, read_bytes
from famcli.loading import load_module
from famcli.models.memories import ENTRY_POINT_GROUP as MEMORIES
from famcli.models.memories import memory_entry_points
from famcli.models.memories.base import Memory
from famcli.task import ENTRY_POINT_GROUP as TASKS
from famcli.task import Task

_KINDS = {TASKS: "task", MODELS: "model", MEMORIES: "memory"}
_NO_PLUGINS = ("conftest.py", "setup.py", "__init__.py")


@contextmanager
def plugins(paths: Sequence[Path]) -> Iterator[None]:
    """What the paths bring is known inside the block.

    Raises:
        UserError: a file cannot be read or fails, nothing is in it, or something has a name that another has.
    """
    added = list[Distribution]()
    try:
        for path in dict.fromkeys(path.resolve() for path in paths):
            shown = next(given for given in paths if given.resolve() == path)
            entries = _found(shown)
            _check_names(entries, shown)
            added.append(_Offered(shown, tuple(entries)))
            _OFFERED.append(added[-1])
            memory_entry_points.cache_clear()
        yield
    finally:
        for one in added:
            _OFFERED.remove(one)
        memory_entry_points.cache_clear()


def _found(path: Path) -> list[EntryPoint]:
    """What a path brings."""
    if not path.is_dir():
        found = _of_module(load_module(path))
    elif (path / "__init__.py").exists():
        raise UserError(f"{path} is a package", f"give one of its files, or install it and leave out --plugin {path}")
    elif (entries := _declared(path)) is not None:
        found = entries
    else:
        files = sorted(file for file in path.glob("*.py") if _may_be_plugin(file.name))
        found = [entry for file in files for entry in _of_module(load_module(file))]
    if not found:
        raise UserError(
            f"{path} brings no task, no model and no memory",
            "it wants a subclass of famcli.task.Task or of Memory, or a function '-> PluginSource'; see docs/extend.md",
        )
    return found


def _may_be_plugin(name: str) -> bool:
    return name not in _NO_PLUGINS and not name.startswith((".", "test_"))


def _declared(folder: Path) -> list[EntryPoint] | None:
    """What the ``pyproject.toml`` of a package names, which need not be installed; ``None`` where it names nothing."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        told = tomllib.loads(read_bytes(file).decode()).get("project", {}).get("entry-points", {})
        named = [(group, name, str(value)) for group in _KINDS for name, value in told.get(group, {}).items()]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    return [_entry(group, name, value, folder) for group, name, value in named] or None


def _entry(group: str, name: str, value: str, folder: Path) -> EntryPoint:
    module, _, attribute = value.partition(":")
    file = next((f for f in (folder / f"{module}.py", folder / "src" / f"{module}.py") if f.is_file()), None)
    if file is None:
        raise UserError(
            f"{folder / 'pyproject.toml'}: '{name}' names {value}, and there is no file {folder / module}.py",
            f"a package of several folders is installed: pip install --editable {folder}",
        )
    return EntryPoint(name, f"{load_module(file).__name__}:{attribute}", group)


def _of_module(module: ModuleType) -> list[EntryPoint]:
    """What stands in a file; what begins with ``_``, and what lacks methods, is there for others to build on."""
    found = []
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if (group := _group_of(value)) is not None:
            name = attribute if group == MODELS else getattr(value, "name", attribute)
            found.append(EntryPoint(str(name), f"{module.__name__}:{attribute}", group))
    return found


def _group_of(value: Any) -> str | None:
    if inspect.isclass(value):
        if inspect.isabstract(value):
            return None
        return TASKS if issubclass(value, Task) else MEMORIES if issubclass(value, Memory) else None
    told = inspect.get_annotations(value).get("return") if inspect.isfunction(value) else None
    is_model = told is PluginSource or (isinstance(told, str) and told.rpartition(".")[2] == PluginSource.__name__)
    return MODELS if is_model else None


def _check_names(entries: Iterable[EntryPoint], path: Path) -> None:
    """One name, one thing."""
    seen: dict[tuple[str, str], str] = {}
    for entry in entries:
        known = [other.value for other in entry_points(group=entry.group, name=entry.name)]
        other = seen.setdefault((entry.group, entry.name), entry.value)
        if other != entry.value or known:
            theirs = _shown(other if other != entry.value else known[0])
            raise UserError(
                f"{path} brings a {_KINDS[entry.group]} '{entry.name}', and so does {theirs}",
                f"give yours another name{', or uninstall the other' if known else ''}",
            )


def _shown(value: str) -> str:
    """What an entry point names, with the file where it is one."""
    module, _, attribute = value.partition(":")
    loaded = sys.modules.get(module)
    return f"{loaded.__file__}:{attribute}" if hasattr(loaded, SOURCE_SHA256) and loaded else value


@dataclass(frozen=True)
class _Offered(Distribution):
    """A path as ``importlib.metadata`` sees it; no two have one name, whatever they are called."""

    path: Path
    entries: tuple[EntryPoint, ...]

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: {self.path}\nVersion: 0\n"
        if filename != "entry_points.txt":
            return None
        groups = {entry.group for entry in self.entries}
        return "\n".join(
            f"[{group}]\n" + "\n".join(f"{e.name} = {e.value}" for e in self.entries if e.group == group)
            for group in sorted(groups)
        )

    def locate_file(self, path: Any) -> Any:
        return self.path / path

    @property
    def _normalized_name(self) -> str:  # what importlib.metadata tells distributions apart by
        return f"famcli plugin {self.path.resolve()}"


class _Finder:
    """Asked by ``importlib.metadata`` for distributions, and by ``import`` for modules, of which it has none."""

    def find_spec(self, *_: Any) -> None:
        return None

    def find_distributions(self, context: Any = None) -> Iterable[Distribution]:
        name = getattr(context, "name", None)
        return [one for one in _OFFERED if name in (None, one.metadata["Name"])]


_OFFERED: list[Distribution] = []
sys.meta_path.append(_Finder())
