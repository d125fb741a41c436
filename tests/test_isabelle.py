"""Isabelle: headers against the grammar, the order of theories against what an order must be, scores in closed form."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from famcli.tasks.isabelle import Isabelle
from famcli.tasks.theories import TheoryFile, join_theories, order_theories, parse_header, parse_root
from hypothesis import given, settings
from hypothesis import strategies as st

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Predicted, Sample

REAL = Path(__file__).parents[2] / "shared/data/isabelle/isabelle_afp.jsonl.gz"


def theory(path: str, imports: Sequence[str] = ("Main",), body: str = "") -> TheoryFile:
    name = Path(path).stem
    text = f"theory {name}\n  imports {' '.join(imports)}\nbegin\n{body}\nend\n"
    return TheoryFile(path, text, f"E/{path}")


def names(theories: Sequence[TheoryFile]) -> list[str]:
    return [t.name for t in theories]


HEADERS = {
    "theory A imports Main begin end": ("A", ["Main"]),
    "theory A\nimports\n  Main\n\n  B\n  C\nbegin": ("A", ["Main", "B", "C"]),
    'theory "A" imports "HOL-Library.FSet" "../Other/D" S.C begin': ("A", ["HOL-Library.FSet", "../Other/D", "S.C"]),
    "(* theory X (* nested *) imports Y begin *) theory A imports B begin": ("A", ["B"]),
    "theory (* here *) A imports B (* D (* E *) F *) C begin": ("A", ["B", "C"]),
    'chapter "A theory" section \\<open>a \\<open>theory\\<close> X\\<close> theory A imports B begin': ("A", ["B"]),
    "section ‹a ‹theory› X›\ntext \\<open>(* \\<close> theory A imports B begin": ("A", ["B"]),
    "header {* a theory X imports Y begin *}\ntheory A imports B begin": ("A", ["B"]),
    "section %invisible theory theory A imports B begin": ("A", ["B"]),
    "section Theory theory %visible A imports B begin": ("A", ["B"]),
    "section \\<^marker>\\<open>creator theory\\<close> \\<open>T\\<close> theory A imports B begin": ("A", ["B"]),
    "theory A imports B \\<comment> \\<open>for C\\<close> D begin": ("A", ["B", "D"]),
    'theory A imports B keywords "begin" :: thy_decl and "x" :: thy_goal % "proof" = "." C begin': ("A", ["B"]),
    'theory A imports B abbrevs "=>" = "\\<Rightarrow>" and "C" = "\\"" begin': ("A", ["B"]),
    'theory A imports B keywords "a" "b" :: diag abbrevs "c" = "" begin': ("A", ["B"]),
    "theory Pure_Like begin": ("Pure_Like", []),
    "\ufefftheory A' imports B_2.C' begin": ("A'", ["B_2.C'"]),
    "theory\r\n  A\r\nimports B\r\nbegin": ("A", ["B"]),
    'theory A imports B begin lemma "open': ("A", ["B"]),
}


@pytest.mark.parametrize("text", HEADERS)
def test_headers(text: str) -> None:
    header = parse_header(TheoryFile("A.thy", text, "A.thy"))
    assert (header.name, list(header.imports)) == HEADERS[text]


BROKEN_HEADERS = {
    "": "A.thy has no theory header",
    "(* theory A imports B begin *)": "A.thy has no theory header",
    "lemma x: y": "A.thy, line 1: a theory header is expected, not 'lemma'",
    "\n\ntheory = A imports B begin": "A.thy, line 3: 'theory' must be followed by a name, not '='",
    "theory A imports B\nend": "A.thy: the header of theory 'A' has no 'begin'",
    "theory A imports\nHOL-Library.B begin": "A.thy, line 2: the header of a theory cannot hold '-' here",
    "theory A\nB begin": "A.thy, line 2: the header of a theory cannot hold 'B' here",
    "\n(* a (* b *) theory A imports B begin": "A.thy, line 2: a comment (* does not end",
    "section \\<open>x\ntheory A imports B begin": "A.thy, line 1: a cartouche \\<open> does not end",
    'theory A\nimports "B begin': "A.thy, line 2: a string does not end",
}


@pytest.mark.parametrize("text", BROKEN_HEADERS)
def test_broken_headers_name_file_and_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_header(TheoryFile("A.thy", text, "A.thy"))
    assert error.value.message == BROKEN_HEADERS[text]


def test_root_files() -> None:
    root = """
    chapter AFP
    (* session No = HOL + theories X *)
    session "My-Base" (AFP slow) in "base" = "HOL-Analysis" +
      description \\<open>theories in here\\<close>
      options [timeout = 600, document = pdf]
      sessions "HOL-Library" Graphs
      directories "sub" "../other"
      theories [document = false] "HOL-Library.FSet"
      theories A (global) "sub/B"
      document_files (in "root") "root.tex"
    session Last = "My-Base" + theories C
    """
    first, last = parse_root(TheoryFile("ROOT", root, "ROOT"))
    assert (first.name, first.directories) == ("My-Base", ("base", "base/sub", "other"))
    assert first.theories == ("HOL-Library.FSet", "A", "sub/B")
    assert (last.name, last.directories, last.theories) == ("Last", ("",), ("C",))


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, set[str]]:
    """What each theory imports, without cycles: only from those before it in some hidden order."""
    hidden = draw(st.permutations([f"T{i}" for i in range(draw(st.integers(1, 9)))]))
    return {
        name: set(draw(st.lists(st.sampled_from(hidden[:i]), max_size=4)) if i else []) for i, name in enumerate(hidden)
    }


def as_import(name: str, directory: str, places: dict[str, str], way: int) -> str:
    """One of the ways to write an import of another theory of the entry."""
    up = "" if directory == "." else "../"
    if way == 0:
        return f'"{up}{places[name]}/{name}"'
    return [f'"E.{name}"', name, f'"{up}../E/{places[name]}/{name}"', f'"$AFP/E/{places[name]}/{name}"'][way - 1]


@settings(max_examples=60, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_every_theory_comes_after_its_imports(graph: dict[str, set[str]], rng: random.Random) -> None:
    """On real files; and the order is the same whatever order the files are found in."""
    places = {name: rng.choice((".", "sub", "ex")) for name in graph}
    with tempfile.TemporaryDirectory() as folder:
        for name, imports in graph.items():
            path = Path(folder, places[name], f"{name}.thy")
            path.parent.mkdir(exist_ok=True)
            written = [
                "Main",
                "HOL-Library.T0",
                *(as_import(i, places[name], places, rng.randrange(5)) for i in imports),
            ]
            rng.shuffle(written)
            quoted = " ".join(f'"{i}"' if "-" in i else i for i in written)
            path.write_text(f"(* {name} *) theory {name} imports {quoted} begin end")
        files = [
            TheoryFile(path.relative_to(folder).as_posix(), path.read_text(), path.name)
            for path in Path(folder).rglob("*.thy")
        ]
    ordered = order_theories("E", files)
    assert sorted(names(ordered)) == sorted(graph)
    for i, later in enumerate(ordered):
        assert graph[later.name] <= set(names(ordered[:i]))
    rng.shuffle(files)
    assert order_theories("E", files) == ordered


def test_ties_go_by_root_and_then_by_name() -> None:
    files = [theory("D.thy"), theory("C.thy"), theory("sub/A.thy"), theory("B.thy", ["C"])]
    assert names(order_theories("E", files)) == ["A", "C", "B", "D"]
    root = TheoryFile("ROOT", 'session E = HOL + directories "sub" theories B D A', "ROOT")
    assert names(order_theories("E", files, [root])) == ["D", "A", "C", "B"]
    in_sub = TheoryFile("ROOT", 'session E = HOL + theories D "sub/A"', "ROOT")
    assert names(order_theories("E", files, [in_sub])) == ["D", "A", "C", "B"]


def test_sessions_of_root_tell_theories_of_one_name_apart() -> None:
    root = TheoryFile("ROOT", 'session E = HOL + theories A session "E-Ex" in ex = E + theories Z', "ROOT")
    files = [theory("A.thy"), theory("ex/A.thy", ["E.A"]), theory("ex/Z.thy", ["A"]), theory("B.thy", ['"E-Ex.A"'])]
    assert [t.path for t in order_theories("E", files, [root])] == ["A.thy", "ex/A.thy", "ex/Z.thy", "B.thy"]


def test_a_name_means_the_theory_in_the_same_folder() -> None:
    files = [theory("x/A.thy"), theory("y/A.thy", ["Z"]), theory("x/B.thy", ["A"]), theory("y/Z.thy")]
    assert [t.path for t in order_theories("E", files)] == ["x/A.thy", "x/B.thy", "y/Z.thy", "y/A.thy"]


def test_an_import_that_could_be_two_files() -> None:
    with pytest.raises(UserError, match=r"E/C.thy: import 'A' could be any of E/x/A.thy, E/y/A.thy"):
        order_theories("E", [theory("C.thy", ["A"]), theory("x/A.thy"), theory("y/A.thy")])


def test_a_cycle_names_its_files_and_no_others() -> None:
    files = [theory("A.thy"), theory("B.thy", ["A", "D"]), theory("C.thy", ["B"]), theory("D.thy", ["C"])]
    with pytest.raises(UserError) as error:
        order_theories("E", [*files, theory("Later.thy", ["C"])])
    assert error.value.message.endswith(": E/B.thy imports E/D.thy imports E/C.thy imports E/B.thy")
    with pytest.raises(UserError, match=r"cycle: E/A.thy imports E/A.thy"):
        order_theories("E", [theory("A.thy", ["A"])])


def test_a_theory_of_another_name_than_its_file() -> None:
    wrong = TheoryFile("A.thy", "theory B imports Main begin end", "E/A.thy")
    with pytest.raises(UserError, match=r"E/A.thy holds the theory 'B', not 'A'"):
        order_theories("E", [wrong])


def test_joined_by_one_blank_line() -> None:
    files = [TheoryFile(f"{i}.thy", text, "") for i, text in enumerate(("\n\na\r\n b \n\n\n", "\ufeffc", "d\n\ne\n"))]
    assert join_theories(files) == "a\n b \n\nc\n\nd\n\ne\n"


def real_entries() -> list[dict[str, Any]]:
    if not REAL.exists():
        pytest.skip("no real entries here")
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def split_entry(entry: dict[str, Any]) -> list[TheoryFile]:
    """The files of a joined entry: one ends with its last ``end`` and what follows that without a blank line."""
    text, cuts, at = entry["text"], [0], 0
    for i, name in enumerate(entry["theories"]):
        header = re.compile(rf'^\s*theory\s+"?{re.escape(name)}"?\s', re.MULTILINE).search(text, at)
        assert header
        at = header.end()
        if i:
            cuts.append(max(m.end() for m in re.finditer(r"(?m)^end\b.*\n(?:.+\n)*", text[:at])))
    bounds = zip(entry["theories"], cuts, [*cuts[1:], len(text)], strict=True)
    return [TheoryFile(f"{name}.thy", text[low:high], f"{name}.thy") for name, low, high in bounds]


def test_real_entries_split_into_files_are_joined_again() -> None:
    """Of what is ready the first listed comes next, so only a right order comes out as it was listed."""
    for entry in real_entries():
        files = split_entry(entry)
        random.Random(0).shuffle(files)
        # The folders of the files are not known: all lie in one.
        flat = [TheoryFile(f.path, re.sub(r'"[\w./]+/(\w+)"', r'"\1"', f.text), f.label) for f in files]
        root = TheoryFile("ROOT", f"session {entry['entry']} = HOL + theories {' '.join(entry['theories'])}", "ROOT")
        order = names(order_theories(entry["entry"], flat, [root]))
        assert order == entry["theories"]
        by_name = {f.name: f for f in files}
        assert join_theories([by_name[name] for name in order]) == entry["text"]


def write_entry(folder: Path, *files: TheoryFile) -> None:
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")


def samples(data: Path | str, limit: int | None = None) -> list[Sample]:
    found: list[Sample] = Isabelle.from_options({"data": str(data)}).samples(ByteTokenizer(), 0, limit)
    return found


def text_of(sample: Sample) -> str:
    text: str = sample.request().text  # type: ignore[union-attr]
    return text


STACKS = (theory("A.thy", ['"sub/Z"']), theory("sub/Z.thy", body="lemma z"), TheoryFile("ROOT", "session E", ""))
JOINED = join_theories([STACKS[1], STACKS[0]])


@pytest.mark.parametrize("level", ["", "thys", "afp/thys"])
def test_a_directory_of_entries(tmp_path: Path, level: str) -> None:
    write_entry(tmp_path / level / "Stacks", *STACKS)
    write_entry(tmp_path / level / "Another", theory("B.thy"))
    write_entry(tmp_path / level / "No_Theories", TheoryFile("ROOT", "session No = HOL + theories X", ""))
    write_entry(tmp_path / level / ".hg", TheoryFile("x.thy", "no theory", ""))
    if level:
        write_entry(tmp_path / "tools", TheoryFile("lib/x.thy", "no theory", ""))
    found = samples(tmp_path)
    assert [sample.id for sample in found] == ["Another", "Stacks"]
    assert text_of(found[1]) == JOINED
    assert found[1].details == {"theories": 2, "bytes": len(JOINED)}
    assert [sample.id for sample in samples(tmp_path, limit=1)] == ["Another"]


def test_a_zip_and_a_single_entry_are_the_same_text(tmp_path: Path) -> None:
    write_entry(tmp_path / "Stacks", *STACKS)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for path in (tmp_path / "Stacks").rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    for data in (tmp_path / "Stacks", tmp_path / "archive.zip"):
        assert [(sample.id, text_of(sample)) for sample in samples(data)] == [("Stacks", JOINED)]


def test_entries_given_one_by_one_stay_apart(tmp_path: Path) -> None:
    """Each may have a theory of the same name; none may be lost."""
    for name in ("One", "Two"):
        write_entry(tmp_path / "thys" / name, theory("Main_Thm.thy", body=f"lemma {name}"))
    together = [(sample.id, text_of(sample)) for sample in samples(tmp_path)]
    assert [name for name, _ in together] == ["One", "Two"]
    paths = ",".join(str(tmp_path / "thys" / name) for name in ("Two", "One"))
    assert [(sample.id, text_of(sample)) for sample in samples(paths)] == together


def test_two_entries_of_one_name_are_told(tmp_path: Path) -> None:
    for place in ("old", "new"):
        write_entry(tmp_path / place / "E", theory("A.thy", body=f"lemma {place}"))
    with pytest.raises(UserError, match="two entries E"):
        samples(f"{tmp_path / 'old'},{tmp_path / 'new'}")


def test_the_order_of_theories_is_part_of_what_the_data_is(tmp_path: Path) -> None:
    """The same two texts, but the names of their files tell which of two entries they are of."""
    texts = ("theory A imports Main begin end", "theory B imports Main begin end")
    write_entry(tmp_path / "apart", *(TheoryFile(f"E{i}/{text[7]}.thy", text, "") for i, text in enumerate(texts)))
    write_entry(tmp_path / "joined", *(TheoryFile(f"E0/{text[7]}.thy", text, "") for text in texts))
    shutil.copytree(tmp_path / "apart", tmp_path / "copy" / "apart")
    found = [
        Isabelle.from_options({"data": str(tmp_path / place)}).provenance()["sha256"]
        for place in ("apart", "joined", "copy/apart")
    ]
    assert found[0] == found[2] != found[1]


def test_joined_entries(tmp_path: Path) -> None:
    rows = [
        {"id": "afp/A", "entry": "A", "title": "On A", "theories": ["X", "Y"], "text": "x\n"},
        {"id": "B", "text": "y"},
    ]
    path = tmp_path / "entries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = samples(path)
    assert (first.id, first.reference, first.details["theories"], text_of(first)) == ("A", "On A", 2, "x\n")
    assert (second.id, second.reference, second.details["theories"], text_of(second)) == ("B", "B", 0, "y")


def test_the_built_in_entries() -> None:
    for sample in samples("sample"):
        headers = re.findall(r"^theory \w+", text_of(sample), re.MULTILINE)
        assert len(headers) == sample.details["theories"]
        assert len(headers) > 1


ERRORS = {
    "A.thy": ("no header here", "E/A.thy, line 1: a theory header is expected, not 'no'"),
    "B.thy": ("", "E/B.thy has no theory header"),
    "sub/C.thy": ("theory D imports Main begin end", "E/sub/C.thy holds the theory 'D', not 'C'"),
    "F.thy": ("theory F imports G begin end", "theories import each other in a cycle: E/F.thy imports E/G.thy"),
}


@pytest.mark.parametrize("path", ERRORS)
def test_errors_name_the_file_below_what_was_given(tmp_path: Path, path: str) -> None:
    text, message = ERRORS[path]
    write_entry(tmp_path / "E", TheoryFile(path, text, ""), theory("G.thy", ["F"]))
    with pytest.raises(UserError, match=re.escape(message)):
        samples(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "A"}, "entries.jsonl, line 1: field 'text' is missing"),
        ({"id": "A", "text": "x", "theories": "X"}, "entries.jsonl, line 1: field 'theories' must be a list, not text"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "entries.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=message):
        samples(tmp_path)


def test_a_directory_without_theories(tmp_path: Path) -> None:
    write_entry(tmp_path / "E", TheoryFile("ROOT", "session E = HOL + theories A", ""))
    with pytest.raises(UserError, match=r"E/ROOT stands without theories"):
        samples(tmp_path)


def test_theories_and_records_in_one_place(tmp_path: Path) -> None:
    write_entry(tmp_path / "E", theory("A.thy"))
    (tmp_path / "E/examples.csv").write_text("x,y\n1,2\n")
    assert len(samples(tmp_path)) == 1
    (tmp_path / "more.jsonl").write_text('{"id": "B", "text": "x"}')
    with pytest.raises(UserError, match=r"more.jsonl: rows beside theories"):
        samples(tmp_path)


def test_a_uniform_model_scores_as_it_must(tmp_path: Path) -> None:
    write_entry(tmp_path / "E", theory("A.thy", body="\u2200"))
    [sample] = samples(tmp_path)
    text, vocabulary = text_of(sample), 256
    ids = np.array(ByteTokenizer().encode(text))
    uniform = np.full(len(ids), -math.log(vocabulary), np.float32)
    scores: Any = sample.score(Predicted(text, uniform, ids == ord("n")))
    assert scores["accuracy"] == (pytest.approx(text.count("n") / len(ids)), len(ids))
    assert scores["bits_per_byte"] == (pytest.approx(8), len(text.encode()))
    assert scores["token_perplexity"] == (pytest.approx(vocabulary, rel=1e-5), len(ids))
