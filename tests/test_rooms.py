"""The house: which room imports which. ``python tests/test_rooms.py`` prints the drawing."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"famcli": ROOT / "famcli", "famcli.tasks": ROOT / "tasks"}

ORDER = (
    *("display", "errors", "files", "loading", "inputs", "claim", "content", "fields", "version", "seams"),
    *("machine", "metrics", "models", "checkpoints", "task", "tasks", "harness", "plugins", "evaluation"),
    *("lm_eval", "training"),
    *("profiling",),
    *("compare", "gate", "reports", "cli", "famcli", "__main__"),
)
"""Rooms from the ground up; a room imports only rooms before it. ``famcli`` is what ``import famcli`` gives,
``__main__`` what ``python -m famcli`` runs."""

CLOSED = {
    "metrics": {"files"},
    "task": {"models", "checkpoints", "metrics"},
    "tasks": {"models", "checkpoints"},
    "harness": {"models", "checkpoints"},
    "training": {"evaluation", "tasks"},
    "profiling": {"evaluation", "tasks"},
    "compare": {"models", "checkpoints", "training"},
    "gate": {"models", "checkpoints", "training"},
    "reports": {"models", "checkpoints", "training"},
    "famcli": {"cli"},
}
"""Rooms below that a room does not know all the same. No room knows ``tasks``: a task is found by its entry point."""

KEPT_OUT = {"evaluation": {"click", "rich"}, "metrics": {"torch"}, "compare": {"torch"}, "gate": {"torch"}}
"""Packages that a room does not import."""

MOST_PARAMETERS = 6
"""Positional ones of a function, ``self`` left out: more cannot be told apart where it is called."""


def modules_of(sources: Mapping[str, Path]) -> dict[str, Path]:
    """Files by the name of their module; the inner package owns a file that lies in two."""
    found: dict[str, Path] = {}
    for package, folder in sources.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


def imports_of(file: Path, module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, those inside functions and for the type checker alone included."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)


def arrows_of(sources: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports, by its full name: modules of the house, and packages from outside."""
    modules = modules_of(sources)
    arrows: dict[str, set[str]] = {}
    for module, file in modules.items():
        named = ((source, f"{source}.{name}") for source, name in imports_of(file, module))
        arrows[module] = {inner if inner in modules else source for source, inner in named} - {module}
    return arrows


def room_of(module: str) -> str:
    """``famcli.models.decoder`` -> ``models``, ``famcli`` -> ``famcli``; ``""`` for a package from outside."""
    package, _, rest = module.partition(".")
    return (rest.partition(".")[0] or package) if package == "famcli" else ""


def rooms_of(arrows: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    rooms: dict[str, set[str]] = {}
    for module, targets in arrows.items():
        rooms.setdefault(room_of(module), set()).update(filter(None, map(room_of, targets)))
    return {room: targets - {room} for room, targets in rooms.items()}


def circles(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """The circles of a drawing, ``a -> b -> a``, one for each arrow that closes one."""
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(arrows.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(arrows):
        visit(name, ())
    return found


def offences(sources: Mapping[str, Path]) -> list[str]:
    """What is wrong with a house, in words."""
    arrows = arrows_of(sources)
    found = []
    for module, target in sorted((module, target) for module, targets in arrows.items() for target in targets):
        room, other = room_of(module), room_of(target)
        if target.partition(".")[0] in KEPT_OUT.get(room, ()):
            found.append(f"{module} imports {target}, which {room} does without")
        if not other or other == room:
            continue
        if other not in ORDER:
            found.append(f"{module} imports {target}: the room {other} is not in the drawing")
        elif room in ORDER and ORDER.index(other) > ORDER.index(room):
            found.append(f"{module} imports {target}: {other} is above {room}")
        elif other == "tasks":
            found.append(f"{module} imports {target}: tasks are found by their entry points, not by name")
        elif other in CLOSED.get(room, ()):
            found.append(f"{module} imports {target}: {room} knows nothing of {other}")
    for module in arrows:
        if room_of(module) not in ORDER:
            found.append(f"{module} is in no room of the drawing")
    found += [f"circle of rooms: {circle}" for circle in circles(rooms_of(arrows))]
    return found + [f"circle of modules: {circle}" for circle in circles(arrows)]


def drawing(sources: Mapping[str, Path]) -> str:
    """The rooms from the ground up, a line each, with those that they import."""
    rooms = rooms_of(arrows_of(sources))
    widest = max(map(len, rooms))
    lines = []
    for room in sorted(rooms, key=ORDER.index):
        below = sorted(rooms[room], key=ORDER.index)
        lines.append(f"{room:<{widest}}  <-  {', '.join(below)}" if below else room)
    return "\n".join(lines)


def long_functions(sources: Mapping[str, Path]) -> list[str]:
    """``module.function`` of what takes more positional parameters than a reader can tell apart."""
    found = []
    for module, file in modules_of(sources).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                    found.append(f"{module}.{node.name}")
    return sorted(found)


def test_rooms_import_only_rooms_below_them_and_nothing_in_circles() -> None:
    assert offences(SOURCES) == []


def test_the_docs_show_the_drawing() -> None:
    assert f"```\n{drawing(SOURCES)}\n```" in (ROOT / "docs" / "architecture.md").read_text()


def test_no_function_takes_more_positional_parameters_than_a_reader_can_tell_apart() -> None:
    assert not list(long_functions(SOURCES))


@pytest.fixture
def house(tmp_path: Path) -> dict[str, Path]:
    """A house of two rooms and a plugin, built as ours is; nothing is wrong with it."""
    for name, text in {
        "famcli/__init__.py": "from famcli.errors import Wrong\n",
        "famcli/errors.py": "class Wrong(Exception): ...\n",
        "famcli/metrics/__init__.py": "",
        "famcli/metrics/text.py": "from famcli.errors import Wrong\n",
        "famcli/models/__init__.py": "",
        "famcli/models/decoder.py": "import torch\n\nfrom famcli.models import state\n",
        "famcli/models/state.py": "from famcli import errors\n",
        "tasks/__init__.py": "",
        "tasks/passkey.py": "from famcli.metrics import text\n\nfrom . import sources\n",
        "tasks/sources.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return {"famcli": tmp_path / "famcli", "famcli.tasks": tmp_path / "tasks"}


def test_a_house_in_order_has_no_offences(house: dict[str, Path]) -> None:
    assert offences(house) == []
    assert drawing(house).splitlines() == [
        "errors",
        "metrics  <-  errors",
        "models   <-  errors",
        "tasks    <-  metrics",
        "famcli   <-  errors",
    ]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("metrics/text.py", "from famcli.models.state import S", "famcli.models.state: models is above metrics"),
        ("metrics/text.py", "import famcli", "famcli.metrics.text imports famcli: famcli is above metrics"),
        ("metrics/text.py", "def f():\n    from famcli.models import decoder", "decoder: models is above metrics"),
        ("models/state.py", "if TYPE_CHECKING:\n    from .decoder import D", "models.state -> famcli.models.decoder"),
        ("models/state.py", "from ..cli.main import main", "famcli.models.state imports famcli.cli.main: cli is above"),
        ("errors.py", "def f():\n    import famcli.metrics.text", "circle of rooms: errors -> metrics -> errors"),
        ("metrics/text.py", "import torch.nn", "famcli.metrics.text imports torch.nn, which metrics does without"),
        ("evaluation/run.py", "from famcli.tasks.passkey import X", "tasks are found by their entry points"),
        ("../tasks/passkey.py", "from famcli.models import state", "tasks knows nothing of models"),
        ("../tasks/passkey.py", "from famcli.evaluation import plan", "evaluation is above tasks"),
        ("cellar/wine.py", "", "famcli.cellar.wine is in no room of the drawing"),
        ("__init__.py", "from famcli.cli.main import main", "famcli knows nothing of cli"),
    ],
)  # fmt: skip
def test_what_breaks_the_drawing_is_named(house: dict[str, Path], file: str, text: str, words: str) -> None:
    path = house["famcli"] / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{text}\n")
    assert any(words in offence for offence in offences(house)), offences(house)


def test_a_long_function_is_named(house: dict[str, Path]) -> None:
    path = house["famcli"] / "models" / "state.py"
    path.write_text(
        "class S:\n    def six(self, a, b, c, d, e, f, *, g): ...\n    def seven(a, b, c, d, e, f, g): ...\n"
    )
    assert long_functions(house) == ["famcli.models.state.seven"]


if __name__ == "__main__":
    print(drawing(SOURCES))
