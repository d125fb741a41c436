"""The terminal: no word is broken on a narrow one, every option says what it is, and the shell completes names."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from test_checkpoint import save_small

from famcli.cli.command import cli
from famcli.cli.folding import aligned, folded, paired
from famcli.cli.helping import Formatter
from famcli.cli.main import main

WIDTH = 60
TASK = ("--task", "passkey", "-o", "lengths=400,512", "-o", "trials=2")
EVAL = ("eval", *TASK, "--model", "fam", "--model", "bswa")


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the tree with the words that call it."""
    yield words, command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from commands(inner, (*words, name))


TREE = dict(commands(cli))


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_every_option_of_every_command_has_a_help_text(words: tuple[str, ...]) -> None:
    options = [param for param in TREE[words].params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not (option.help or "").strip()] == []


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_no_help_breaks_a_word_on_a_narrow_terminal(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [TREE[words].help or ""]
    written += [param.help or "" for param in TREE[words].params if isinstance(param, click.Option)]
    meant = set(" ".join(written).replace("\b", "").split())
    for width in range(WIDTH, 84, 2):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main([*words, "--help"]) == 0
        out = capsys.readouterr().out
        assert [line for line in out.splitlines() if len(line) > width] == []
        assert meant - set(out.split()) == set(), f"at {width} columns"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models, and a run of each."""
    folder = tmp_path_factory.mktemp("evaluated")
    with contextlib.chdir(folder):
        for attention in ("fam", "bswa"):
            save_small(Path(attention), attention, block_size=32)
        assert main(EVAL) == 0
    return folder


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 0
    return capsys.readouterr().out


def check_narrow(wide: str, narrow: str) -> None:
    """The narrow output says each word of the wide one, whole; a line is wider only where it is a single word."""
    assert [line for line in narrow.splitlines() if len(line) > WIDTH and len(line.split()) > 1] == []
    assert set(wide.split()) - {"model"} <= set(narrow.split()), "the first column of a block needs no title"


@pytest.mark.parametrize("what", ["tasks", "models", "memories"])
def test_listings_fold_between_words(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = shown(capsys, "list", what)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    check_narrow(wide, shown(capsys, "list", what))


def test_runs_and_comparisons_fold_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, evaluated: Path
) -> None:
    monkeypatch.chdir(evaluated)
    for args in (
        EVAL,
        ("sweep", *TASK, "--model", "bswa", "-v", "memory_segments=0,1"),
        ("list", "runs"),
        ("compare",),
        ("compare", "--baseline", "bswa"),
    ):
        monkeypatch.delenv("COLUMNS", raising=False)
        wide = shown(capsys, *args).replace("_\n", "_")
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        narrow = shown(capsys, *args)
        assert [line for line in narrow.splitlines() if len(line) > WIDTH and len(line.split()) > 1] == [], args
        figures = [word for word in wide.split() if word[:1].isdigit() or word[:1] == "["]
        said = narrow.replace("=", " ").split()
        assert set(figures) <= {*said, *(word.rstrip(",") for word in said)}, args


def test_several_runs_end_in_one_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, evaluated: Path
) -> None:
    monkeypatch.chdir(evaluated)
    assert "model  task" not in shown(capsys, *EVAL[:-2]), "one run needs no table"
    out = shown(capsys, *EVAL)
    table = out[out.index("model  task") :].splitlines()
    assert len(table) == 3
    for line in table[1:]:
        model, task, metric, *score, run = line.split()
        assert (model, task, metric) == (run.split("-")[1], "passkey", "accuracy")
        own = next(part for part in out.split("\n\n") if f"results/{run}/run.json" in part)
        assert re.search(rf"^accuracy +{re.escape(' '.join(score))}$", own, re.MULTILINE)


def test_a_word_stays_whole_wherever_a_line_is_folded() -> None:
    assert folded("  one two-three", 11) == "  one\n    two-three"
    assert folded("a " + "b" * 20, 10) == "a\n  " + "b" * 20
    assert folded("as it is", None) == "as it is"
    assert paired([("name", "a value"), ("long name", "x" * 9)], 16) == [
        "name       a",
        "           value",
        "long name",
        "  " + "x" * 9,
    ]
    assert aligned(["a", "b"], [["1", "22"]], 1, None) == ["a  b", "1  22"]
    assert aligned(["a", "bbb"], [["1", "22"]], 1, 5) == ["1", "  bbb", "  22"]


def complete(words: str, folder: Path) -> list[str]:
    """What bash is offered behind the words; a word more than there are begins anew."""
    typed = ["famcli", *words.split(" ")]
    environment = {
        **os.environ,
        "_FAMCLI_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(typed),
        "COMP_CWORD": str(len(typed) - 1),
    }
    code = (
        "import sys\nfrom famcli.cli.main import main\n"
        "try:\n    main([])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'pandas', 'datasets'} & set(sys.modules)\n    print('heavy', *heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    *offered, heavy = done.stdout.splitlines()
    assert heavy.split() == ["heavy"], "nothing heavy is imported to complete a word"
    assert done.stderr == ""
    return [line.partition(",")[2] for line in offered if line]


@pytest.fixture(scope="module")
def with_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with_runs")
    for name in ("passkey-a-111111111111", "passkey-b-222222222222", "passkey-b-222222222222.old-1", "no-record"):
        (folder / "results" / name).mkdir(parents=True)
        if name != "no-record":
            (folder / "results" / name / "run.json").write_text("{}")
    (folder / "suites").mkdir()
    (folder / "suites" / "quite-mine.yaml").touch()
    (folder / "results" / "passkey-\x1b[31m").mkdir()
    (folder / "results" / "passkey-\x1b[31m" / "run.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("eval --task pas", ["passkey"]),
        ("eval --task q", ["qasper", "quality"]),
        ("check --suite qu", ["quick", "quite-mine"]),
        ("sweep --model fam-t", ["fam-tiny"]),
        ("profile --against bswa-t", ["bswa-tiny"]),
        ("compare passkey-", ["passkey-a-111111111111", "passkey-b-222222222222"]),
        ("report --baseline passkey-b", ["passkey-b-222222222222"]),
        ("compare --output nowhere passkey-", []),
        ("data check pg", ["pg19"]),
        ("ev", ["eval"]),
        ("evl --mod", []),
    ],
)
def test_the_shell_completes_names_and_imports_nothing_heavy(words: str, offered: list[str], with_runs: Path) -> None:
    assert complete(words, with_runs) == offered


@pytest.mark.parametrize("width", range(24, 60))
def test_options_and_hyphened_words_stay_whole_in_any_help(width: int) -> None:
    text = "Part of a document beyond --max-context to cut, one user-made chat-template thing"
    formatter = Formatter(width=width)
    formatter.write_text(text)
    formatter.write_dl([("-x", text)])
    assert formatter.getvalue().split() == [*text.split(), "-x", *text.split()]
