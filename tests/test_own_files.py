"""Tasks, models and memories in files that the user names: ``--task FILE.py:CLASS`` and ``--plugin PATH``."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.files import content_sha256, source_sha256
from famcli.loading import load_module, own_place
from famcli.plugins import plugins
from famcli.task import load_task, load_typed_task

EXAMPLES = Path(__file__).parent.parent / "examples"

TASK = """
from famcli.task import Generate, MetricSpec, Prompt, Sample, Task

class Mine(Task):
    name, version, summary, metrics = "mine", 1, "a task", (MetricSpec("right"),)

    def samples(self, tokenizer, seed, limit):
        return [Sample("a", {}, "x", lambda: Generate(Prompt(("say x",)), 1), score)]

def score(answer):
    return {"right": 1.0}
"""

OTHER = TASK.replace("{", "{{").replace("}", "}}").replace("\n    def samples", "    {0}\n    def samples")
ACCURACY = TASK.replace("{", "{{").replace("}", "}}").replace("right", "accuracy").replace("1.0", "{0}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model, ``fam``, and a task, ``mine.py``, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32)
    Path("mine.py").write_text(TASK)


def run_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["eval", "--model", "fam", "--json", *words]) == 0, capsys.readouterr().err
    run: dict[str, Any] = json.loads(capsys.readouterr().out)["runs"][0]
    record: dict[str, Any] = json.loads(Path(run["path"]).read_text())
    return record


def test_a_task_in_a_file_is_the_same_run_however_it_is_named_and_an_edit_makes_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_class = run_of(capsys, "--task", "./mine.py:Mine")
    assert by_class["metrics"]["right"]["value"] == 1.0
    assert by_class["task"]["source_sha256"] == content_sha256(Path("mine.py"))
    for words in (["--task", "mine.py"], ["--plugin", "mine.py", "--task", "mine"]):
        assert run_of(capsys, *words)["run_id"] == by_class["run_id"]
    Path("mine.py").write_text(TASK.replace("1.0", "0.0"))
    edited = run_of(capsys, "--task", "mine.py")
    assert edited["run_id"] != by_class["run_id"] and edited["metrics"]["right"]["value"] == 0.0
    assert not list(Path().glob("**/__pycache__")), "nothing is left beside the user's files"


def test_neighbours_are_imported_and_belong_to_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("from far_helper import score as told\n" + TASK.replace('{"right": 1.0}', "told()"))
    Path("far_helper.py").write_text("def score(): return {'right': 0.5}")
    Path("unused.py").write_text("raise SystemExit")
    before = list(sys.path)
    first = run_of(capsys, "--task", "mine.py")
    assert first["metrics"]["right"]["value"] == 0.5
    Path("far_helper.py").write_text("def score(): return {'right': 0.25}")
    second = run_of(capsys, "--task", "mine.py")
    assert second["metrics"]["right"]["value"] == 0.25 and second["run_id"] != first["run_id"]
    assert sys.path == before


def test_an_example_has_the_hash_that_it_has_when_it_is_installed() -> None:
    """The hash of an installed module is that of its one file."""
    folder = EXAMPLES / "task-multi-needle"
    with plugins([folder]):
        task = load_task("multi-needle", {"keys": "2"})
    assert source_sha256(type(task)) == content_sha256(folder / "multi_needle.py")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("x = (", "mine.py", r"mine\.py, line 1: '\(' was never closed"),
        ("\n\nx = 1 / 0", "mine.py", r"mine\.py, line 3: ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name", "mine.py", r"mine\.py, line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)", "mine.py", r"mine\.py, line 1: SystemExit: 3"),
        ("import broken", "mine.py", r"broken\.py, line 2: "),
        ("from .x import y", "mine.py", r"mine\.py, line 1: ImportError.*\nhint: .*from helper import x"),
        ("", "mine.py", r"mine\.py has no task"),
        (TASK + TASK.replace("Mine", "Other"), "mine.py", r"2 tasks: Mine, Other\nhint: say which: mine\.py:Mine"),
        (TASK, "mine.py:Mien", r"unknown task in mine\.py: 'Mien'\nhint: did you mean Mine"),
        (TASK, "./mine:Mine", r"'\./mine:Mine' is no task\nhint: .*ends in \.py"),
        (TASK, "mine:Mine", r"unknown task 'mine:Mine'\nhint: .* --task \./mine\.py:Mine"),
        (TASK, "mine", r"unknown task 'mine'\nhint: .* --task \./mine\.py$"),
        (TASK, "a.b:C", r"unknown task 'a\.b:C'\nhint: .* --task \./a/b\.py:C"),
        (TASK, "./there.py", r"cannot read there\.py: No such file"),
        (TASK.replace('"mine"', '"passkey"'), "mine.py", r"calls itself 'passkey', as a task of famcli's own"),
        (TASK.replace("name, version", "title, version"), "mine.py", r"mine\.py:Mine lacks name"),
        (TASK.replace("def samples", "def _samples"), "mine.py:Mine", r"cannot be made: .*abstract"),
        (TASK.replace('{"right": 1.0}', '{"right": 1 / 0}'), "mine.py", r"ZeroDivisionError.*mine\.py:11\)"),
        (TASK.replace("score(answer)", "score()"), "mine.py", r"cannot be scored: TypeError: .*mine\.py:10\)"),
        (TASK.replace("score)]", "score, y=1)]"), "mine.py", r"cannot be had: TypeError: .*mine\.py:8\)"),
        (TASK.replace('"a", {}', '"a", {"b": None}'), "mine.py", r"in its cell as 'b'.*mine\.py:7\)\nhint: .*mine\.py"),
        (OTHER.format("def __init__(self, options): {}['y']"), "mine.py", r"cannot be made: .*mine\.py:6\)"),
        (OTHER.format("def provenance(self): return {}['y']"), "mine.py", r"data comes from.*'y' .*mine\.py:6"),
        (OTHER.format("def recorded_options(self): return {'y': {1}}"), "mine.py", r"be recorded: .*mine\.py:6\)"),
        (ACCURACY.format(1.5), "mine.py", r"sample a is scored 1\.5 by accuracy, which is a share.*mine\.py:10\)"),
        (ACCURACY.format(-1), "mine.py", r"sample a is scored -1 by accuracy, which is a share.*mine\.py:10\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    text: str, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(text)
    Path("broken.py").write_text("\nx = (")
    assert main(["eval", "--model", "fam", "--task", words]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert "Traceback" not in err


def test_a_line_of_famcli_is_not_the_users_though_it_lies_beside_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout of famcli, or its packages, may lie in the folder of one's own task."""
    famcli, packages = tmp_path / "famcli", tmp_path / "venv" / "site-packages"
    monkeypatch.setattr("famcli.loading._FAMCLI", famcli)
    for file in (tmp_path / "mine.py", famcli / "inner.py", packages / "theirs.py", tmp_path / "helper.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        below = {"mine.py": "helper(fail)", "helper.py": "inner(fail)", "inner.py": "theirs(fail)"}
        file.write_text(f"def {file.stem}(fail):\n    {below.get(file.name, '1 / 0')}\n")
    names: dict[str, Any] = {}
    for file in (packages / "theirs.py", famcli / "inner.py", tmp_path / "helper.py", tmp_path / "mine.py"):
        exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(ZeroDivisionError) as caught:
        names["mine"](None)
    assert own_place(caught.value, tmp_path / "mine.py") == (str(tmp_path / "helper.py"), 2)
    assert own_place(caught.value, packages / "theirs.py") == (str(packages / "theirs.py"), 2)
    assert own_place(caught.value, Path("/elsewhere/x.py")) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"own.py": "x = 1"}, "own brings no task, no model and no memory"),
        ({"own.py": TASK, "two.py": TASK}, r"own brings a task 'mine', and so does .*own\.py:Mine"),
        ({"own.py": TASK.replace('"mine"', '"passkey"')}, "brings a task 'passkey', and so does famcli.tasks.passkey"),
        ({"__init__.py": ""}, "own is a package"),
        ({"pyproject.toml": "x ="}, r"cannot read own/pyproject\.toml"),
        ({"pyproject.toml": '[project.entry-points."famcli.tasks"]\na = "b.c:D"'}, "'a' names b.c:D, and there is no"),
    ],
)  # fmt: skip
def test_a_folder_that_brings_nothing_or_a_name_twice_is_refused(files: dict[str, str], message: str) -> None:
    Path("own").mkdir()
    for name, text in files.items():
        Path("own", name).write_text(text)
    with pytest.raises(UserError, match=message), plugins([Path("own")]):
        pass
    assert not [entry for entry in entry_points(group="famcli.tasks") if entry.name == "mine"], "nothing stays known"


def test_a_folder_brings_its_files_but_tests_and_only_for_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    Path("own", "one.py").write_text(TASK)
    for name in ("test_one.py", "conftest.py", "setup.py"):
        Path("own", name).write_text("raise ValueError('executed')")
    shutil.copy(EXAMPLES / "memory-running-mean" / "running_mean.py", "own")
    shutil.copy(EXAMPLES / "model-own" / "copycat.py", "own")
    for what, name in (("tasks", "mine"), ("memories", "running-mean"), ("models", "find")):
        assert main(["list", what, "--plugin", "own", "--json"]) == 0
        assert f'"{name}"' in capsys.readouterr().out
        assert main(["list", what, "--json"]) == 0
        assert f'"{name}"' not in capsys.readouterr().out


def test_a_model_and_a_memory_of_a_plugin_are_profiled_in_their_own_processes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--plugin", str(EXAMPLES / "model-own"), "--plugin", str(EXAMPLES / "memory-running-mean")]
    memory = "fam,attention=running-mean,mean_slots=8"
    command = ["profile", *words, "--model", "copycat", "--against", memory, "--lengths", "64", "--decode", "1"]
    assert main([*command, "--json"]) == 0, capsys.readouterr().err
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(model["name"], model["status"]) for model in models] == [("copycat", "finished"), (memory, "finished")]


def test_a_file_is_executed_once_and_again_only_when_it_has_changed() -> None:
    Path("count.py").write_text("import sys; sys.counted = getattr(sys, 'counted', 0) + 1")
    try:
        first = load_module(Path("count.py"))
        assert load_module(Path("./count.py")) is first and sys.counted == 1  # type: ignore[attr-defined]
        Path("count.py").write_text("import sys; sys.counted += 1; more = 1")
        assert load_module(Path("count.py")).more == 1 and sys.counted == 2  # type: ignore[attr-defined]
    finally:
        del sys.counted  # type: ignore[attr-defined]


def test_only_what_is_typed_is_executed() -> None:
    """Recipes name tasks, too, and may come from others."""
    Path("mine.py").write_text("import sys; sys.executed = True")
    with pytest.raises(UserError, match="unknown task"):
        load_task("./mine.py:Mine", {})
    assert not hasattr(sys, "executed")
    with pytest.raises(UserError, match="has no task"):
        load_typed_task("./mine.py", {})
    assert vars(sys).pop("executed")


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(capsys, "--task", f"{EXAMPLES / 'my_task.py'}:MyTask")
    assert run["task"]["name"] == "my-task" and run["metrics"]["accuracy"]["n"] == 2
    assert run["cost"]["tokens_read_alone"] > 1.8 * run["cost"]["tokens_read"], "the text is read once"
