"""The theories of an Isabelle session directory in the order in which they build on each other.

Reads as much of Isabelle's outer syntax as theory headers and ROOT files use (Isabelle/Isar reference manual, sections
"Defining theories" and "Outer syntax"; Isabelle system manual, section "Session ROOT specifications").
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple, NoReturn

from famcli.task import DataError

from .ordering import topological_order

MARKUP = frozenset(
    (
        "header",
        "chapter",
        "section",
        "subsection",
        "subsubsection",
        "paragraph",
        "subparagraph",
        "text",
        "txt",
        "text_raw",
    )
)
"""Commands that may stand before ``theory``; each takes one argument."""

SESSION_CLAUSES = frozenset(
    ("description", "options", "sessions", "directories", "theories", "document_theories", "document_files")
)
ROOT_KEYWORDS = SESSION_CLAUSES | {"chapter", "chapter_definition", "session", "export_files", "export_classpath"}

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>\(\*)
    |(?P<cartouche>\\<open>|‹)
    |(?P<verbatim>\{\*.*?\*\})
    |"(?P<string>(?:[^"\\]|\\.)*)"
    |(?P<annotation>\\<\^?\w+>|—)
    |(?P<name>[^\W\d](?:[\w'.]*[\w'])?)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_NESTED = {
    "comment": (re.compile(r"(?P<open>\(\*)|\*\)"), "comment (*"),
    "cartouche": (re.compile(r"(?P<open>\\<open>|‹)|\\<close>|›"), r"cartouche \<open>"),
}


class Token(NamedTuple):
    """One word of the outer syntax.

    Attributes:
        kind: ``name``, ``string``, ``cartouche``, ``verbatim`` or ``sign``.
        value: as written, a string without its quotes.
        line: where it stands, from 1.
    """

    kind: str
    value: str
    line: int


@dataclass(frozen=True)
class TheoryFile:
    """A ``.thy`` or ROOT file.

    Attributes:
        path: below the entry's directory, ``/`` between its parts.
        text: its content.
        label: what messages call it.
        unreadable: why it has no text, where it has none.
    """

    path: str
    text: str
    label: str
    unreadable: DataError | None = None

    @property
    def name(self) -> str:
        """The name of the file's theory."""
        return PurePosixPath(self.path).stem

    @property
    def directory(self) -> str:
        """Of the file, below the entry's directory; empty for that itself."""
        return posixpath.dirname(self.path)


@dataclass(frozen=True)
class Header:
    """What ``theory NAME imports ... begin`` says; imports are as written, without quotes."""

    name: str
    imports: tuple[str, ...]


@dataclass(frozen=True)
class Session:
    """What a ROOT file says of one session.

    Attributes:
        name: the session's.
        directories: where its theories lie, the first being its own, below the entry's directory.
        theories: as listed, each a path below one of the directories.
    """

    name: str
    directories: tuple[str, ...]
    theories: tuple[str, ...]


def order_theories(
    entry: str,
    theories: Sequence[TheoryFile],
    roots: Sequence[TheoryFile] = (),
    left_out: Callable[[str, DataError], None] | None = None,
) -> list[TheoryFile]:
    """``theories`` such that each comes after those it imports; the order they are given in does not matter.

    Imports of theories outside the entry do not count. Of several theories that could come next, the one that stands
    first in ``roots`` does; those that no ROOT lists come after, by name.

    Args:
        entry: name of the directory that all paths are below.
        theories: its ``.thy`` files.
        roots: its ROOT files.
        left_out: is told of a theory that does not fit, its path and why, if no ROOT lists it and nothing listed
            imports it: it is left out.
            ``None`` takes all theories for listed.

    Raises:
        DataError: a header cannot be read, is not that of a theory of the file's name, or has an import that could
            mean several files; or theories import each other in a cycle, whose files are all named. Where there are
            several, the first has the ``others``.
    """
    sessions = [session for root in sorted(roots, key=lambda root: root.path) for session in parse_root(root)]
    finder = _Finder(entry, theories, sessions)
    listed: dict[str, int] = {}
    for session in sessions:
        for name in session.theories:
            for directory in session.directories:
                listed.setdefault(_join(directory, name) + ".thy", len(listed))
    needs, misfits = dict[str, set[str]](), dict[str, DataError]()
    for theory in theories:
        try:
            needs[theory.path] = finder.needed(theory)
        except DataError as error:
            misfits[theory.path] = error
    if left_out is not None:
        reached = _reached(listed, needs)
        for path in sorted(misfits.keys() - reached):
            left_out(path, misfits.pop(path))
    raise_together(list(misfits.values()))
    theories = [theory for theory in theories if theory.path in needs]
    needs = {path: needed & needs.keys() for path, needed in needs.items()}
    places = {theory.path: (listed.get(theory.path, len(listed)), theory.name, theory.path) for theory in theories}
    by_path = {theory.path: theory for theory in theories}
    labels = {theory.path: theory.label for theory in theories}
    return [by_path[path] for path in topological_order(needs, places, labels)]


def raise_together(errors: Sequence[DataError]) -> None:
    """Raises the first error, if there is one, with the others in it."""
    every = [one for error in errors for one in (error, *error.others)]
    if every:
        raise DataError(every[0].message, every[0].hint, every[1:])


def _reached(listed: Iterable[str], needs: Mapping[str, set[str]]) -> set[str]:
    """Paths of the theories that are listed, and of all that they import."""
    reached, todo = set[str](), list(listed)
    while todo:
        path = todo.pop()
        if path not in reached:
            reached.add(path)
            todo += needs.get(path, ())
    return reached


def join_theories(theories: Sequence[TheoryFile]) -> str:
    """One text of all, a blank line between two; line ends are ``\\n``, blank lines around a file are left out."""
    texts = (re.sub("\r\n?", "\n", theory.text.removeprefix("\ufeff")) for theory in theories)
    return "\n\n".join(text.strip("\n") for text in texts) + "\n"


def parse_header(theory: TheoryFile) -> Header:
    """The header of a theory file; what stands between imports and ``begin`` (keywords, abbrevs) is left out.

    Raises:
        DataError: there is none, or it is not complete; the message names the file and the line.
    """
    tokens = _tokens(theory)
    for token in tokens:
        if token.kind == "sign" and token.value == "%":  # a tag, as in: section %visible
            next(tokens, None)
        elif token.kind == "name" and token.value in MARKUP:
            _skip_argument(tokens)
        elif token.kind == "name" and token.value == "theory":
            return _after_theory(theory, tokens)
        elif token.kind == "name":
            _fail(theory, token.line, f"a theory header is expected, not '{token.value}'")
    raise DataError(f"{theory.label} has no theory header", "a theory begins with: theory NAME imports ... begin")


def parse_root(root: TheoryFile) -> list[Session]:
    """The sessions of a ROOT file, as far as they say which theories there are.

    Raises:
        DataError: a string, comment or cartouche in it does not end.
    """
    sessions: list[Session] = []
    name, directory, keyword, values = "", ".", "", dict[str, list[str]]()

    def finish() -> None:
        if name:
            own = _join(root.directory, directory)
            others = (_join(own, other) for other in values.get("directories", ()))
            sessions.append(Session(name, (own, *others), tuple(values.get("theories", ()))))

    tokens = _outside_brackets(_tokens(root))
    for token in tokens:
        if token.kind == "name" and token.value in ROOT_KEYWORDS:
            keyword = token.value
            if keyword == "session":
                finish()
                name, directory, values = "", ".", {}
        elif token.kind in ("name", "string"):
            if keyword == "session" and (token.kind, token.value) == ("name", "in"):
                directory = next(tokens, token).value
            elif keyword == "session":
                name = name or token.value  # what follows the = is the parent
            else:
                values.setdefault(keyword, []).append(token.value)
    finish()
    return sessions


class _Finder:
    """Which files of an entry the imports of its theories mean."""

    def __init__(self, entry: str, theories: Sequence[TheoryFile], sessions: Sequence[Session]) -> None:
        self.entry = entry
        self.theories = {theory.path: theory for theory in theories}
        self.by_name: dict[str, list[TheoryFile]] = {}
        for theory in sorted(theories, key=lambda theory: theory.path):
            self.by_name.setdefault(theory.name, []).append(theory)
        self.sessions = sessions
        self.session_names = {entry} | {session.name for session in sessions}

    def needed(self, theory: TheoryFile) -> set[str]:
        """Paths of the theories of this entry that ``theory`` imports."""
        if theory.unreadable:
            raise theory.unreadable
        header = parse_header(theory)
        if header.name != theory.name:
            hint = f"Isabelle wants this theory in {header.name}.thy"
            raise DataError(f"{theory.label} holds the theory '{header.name}', not '{theory.name}'", hint)
        found = (self._find(name, theory) for name in header.imports)
        return {path for path in found if path is not None}

    def _find(self, name: str, importer: TheoryFile) -> str | None:
        if "/" in name:
            return self._at_path(name, importer)
        session, _, base = name.rpartition(".")
        if session and session not in self.session_names:
            return None
        candidates = self.by_name.get(base, [])
        for directories in self._preferred(session, importer):
            if nearer := [theory for theory in candidates if theory.directory in directories]:
                candidates = nearer
                break
        if len(candidates) > 1:
            labels = ", ".join(theory.label for theory in candidates)
            raise DataError(f"{importer.label}: import '{name}' could be any of {labels}", "import it by its path")
        return candidates[0].path if candidates else None

    def _at_path(self, name: str, importer: TheoryFile) -> str | None:
        if name.startswith("$AFP/"):
            path = _join(name.removeprefix("$AFP/"))
        else:
            path = _join(self.entry, importer.directory, name)
        inside = path.removeprefix(self.entry + "/") + ".thy"
        return inside if path.startswith(self.entry + "/") and inside in self.theories else None

    def _preferred(self, session: str, importer: TheoryFile) -> Iterator[set[str]]:
        """Directories to look into, the nearest first: those of the named session, or of the importer's."""
        if not session:
            yield {importer.directory}
        for other in self.sessions:
            if session == other.name or (not session and importer.directory in other.directories):
                yield set(other.directories)


def _after_theory(theory: TheoryFile, tokens: Iterator[Token]) -> Header:
    name, clause, imports = None, "", list[str]()
    for token in tokens:
        word = token.value if token.kind == "name" else None
        if name is None and token.value == "%":
            next(tokens, None)
        elif name is None:
            if token.kind not in ("name", "string"):
                _fail(theory, token.line, f"'theory' must be followed by a name, not '{token.value}'")
            name = token.value
        elif word == "begin":
            return Header(name, tuple(imports))
        elif word in ("imports", "keywords", "abbrevs", "uses"):
            clause = token.value
        elif not clause or (clause == "imports" and token.kind not in ("name", "string")):
            _fail(theory, token.line, f"the header of a theory cannot hold '{token.value}' here")
        elif clause == "imports":
            imports.append(token.value)
    raise DataError(f"{theory.label}: the header of theory '{name or ''}' has no 'begin'")


def _skip_argument(tokens: Iterator[Token]) -> None:
    for token in tokens:
        if token.kind != "sign":
            return
        next(tokens, None)  # the name of a tag


def _outside_brackets(tokens: Iterator[Token]) -> Iterator[Token]:
    depth = 0
    for token in tokens:
        opening, closing = (token.kind == "sign" and token.value in brackets for brackets in ("[(", "])"))
        depth += opening - closing
        if depth == 0 and not closing:
            yield token


def _tokens(source: TheoryFile) -> Iterator[Token]:
    """The words one by one, without comments and annotations, so that no more is read than is needed."""
    text, position, annotated = source.text.removeprefix("\ufeff"), 0, False
    line, counted = 1, 0
    while found := _TOKEN.match(text, position):
        kind, start = str(found.lastgroup), position
        line, counted = line + text.count("\n", counted, start), start
        position = _end_of_nested(source, kind, found, line) if kind in _NESTED else found.end()
        if kind == "annotation":
            annotated = True
        elif kind not in ("space", "comment"):
            if not (annotated and kind == "cartouche"):
                if kind == "sign" and found["sign"] == '"':
                    _fail(source, line, "a string does not end")
                yield Token(kind, found[kind] if kind == "string" else text[start:position], line)
            annotated = False


def _end_of_nested(source: TheoryFile, kind: str, opened: re.Match[str], line: int) -> int:
    pattern, name = _NESTED[kind]
    depth = 1
    for sign in pattern.finditer(opened.string, opened.end()):
        depth += 1 if sign["open"] else -1
        if not depth:
            return sign.end()
    _fail(source, line, f"a {name} does not end")


def _join(*parts: str) -> str:
    """A path without ``.`` and ``..`` where that can be; the directory itself is the empty path."""
    path = posixpath.normpath(posixpath.join(*parts))
    return "" if path == "." else path


def _fail(source: TheoryFile, line: int, problem: str) -> NoReturn:
    raise DataError(f"{source.label}, line {line}: {problem}")
