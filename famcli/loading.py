"""Code in a file that the user named: executed as a module of its own, and what is wrong is named with its line."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from famcli.errors import UserError, printable
from famcli.files import SOURCE_SHA256, read_bytes, sources_sha256

_PREFIX = "famcli_plugin_"
_MEND = "mend it and repeat the command"


def load_module(path: Path) -> ModuleType:
    """Executes a file and gives its module, which other code can import by its name; once for one content.

    The file may import files that lie beside it, at its top. Nothing else is executed than what it imports. The module
    knows the hash of its source and of theirs, which goes into run ids.

    Raises:
        UserError: it cannot be read, or it fails; the message names file and line.
    """
    file = path.resolve()
    tree = _parsed(_content(path), path)
    beside = _neighbours(tree, file.parent, {file})
    digest = sources_sha256([file, *beside])
    name = _name_of(file, digest)
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    setattr(module, SOURCE_SHA256, digest)
    _forget(beside)
    sys.modules[name] = module
    try:
        with _beside(file.parent):
            exec(compile(tree, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}{_line(error, file)}: {_words(error)}", _hint(error, file)) from error
    for one in beside:  # a class may stand there
        if imported := _module_of(one):
            setattr(imported, SOURCE_SHA256, digest)
    return module


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}", "give the path of a file of Python, such as ./my_task.py"
        ) from error


def _parsed(content: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(content, str(path))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}", _MEND) from error
    except ValueError as error:
        raise UserError(f"{path} is no Python: {error}", _MEND) from error


def _name_of(file: Path, digest: str) -> str:
    mark = hashlib.sha256(f"{file} {digest}".encode()).hexdigest()[:12]
    return f"{_PREFIX}{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{mark}"


def _neighbours(tree: ast.Module, folder: Path, seen: set[Path]) -> list[Path]:
    """The files of ``folder`` that are imported, and those that these import."""
    found = []
    for name in _imported(tree):
        package = folder / name
        files = sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else [folder / f"{name}.py"]
        for file in files:
            if file in seen or not file.is_file():
                continue
            seen.add(file)
            found += [file, *_neighbours(_parsed(_content(file), file), folder, seen)]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    """The first part of each name that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _module_of(file: Path) -> ModuleType | None:
    return next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(file)), None)


def _forget(files: Iterable[Path]) -> None:
    """Modules of files that are imported anew: they may have changed since."""
    for file in files:
        if module := _module_of(file):
            del sys.modules[module.__name__]


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Files of ``folder`` can be imported, behind all that is installed; no compiled copy is left beside them."""
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = kept


def own_place(error: BaseException, file: Path) -> tuple[str, int] | None:
    """File and line of the innermost call in code of others, which begins in ``file``; ``None`` where there is none.

    Files beside ``file`` count as theirs. famcli and installed packages do not, even where they lie beside it.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(Path(f.filename), file)]
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else None


def _is_own(path: Path, file: Path) -> bool:
    if path == file:
        return True
    if not path.is_relative_to(file.parent) or _INSTALLED in (file.parent.name, *path.relative_to(file.parent).parts):
        return False
    return not path.is_relative_to(_FAMCLI) or file.is_relative_to(_FAMCLI)


_FAMCLI = Path(__file__).parent
_INSTALLED = "site-packages"


def _line(error: BaseException, file: Path) -> str:
    """The innermost line of the folder."""
    if isinstance(error, SyntaxError):  # of a file that it imports
        return f" imports {error.filename}, line {error.lineno}"
    if (place := own_place(error, file)) is None:
        return ""
    return f", line {place[1]}" if Path(place[0]) == file else f" ({place[0]}, line {place[1]})"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {printable(str(error), 400)}"


def _hint(error: BaseException, file: Path) -> str | None:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return f"files in {file.parent} are imported by their names: from helper import x"
    return None
