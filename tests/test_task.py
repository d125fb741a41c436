"""Plugins found through entry points: ours, a third party's, a broken one."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from famcli.errors import UserError
from famcli.task import Generate, MetricSpec, Prompt, Sample, Task, available_tasks, load_task
from famcli.training.material import words_of

PLUGIN = """
from dataclasses import dataclass
from famcli.task import MetricSpec, Task, option

def parse_even(text):
    if int(text) % 2:
        raise ValueError("an even number")
    return int(text)

@dataclass(frozen=True)
class Options:
    size: int = option("4", "how large", parse_even)

class Demo(Task):
    name, version, summary, metrics = "demo", 3, "a demonstration", (MetricSpec("score"),)
    Options = Options

    def samples(self, tokenizer, seed, limit):
        return []

NOT_A_TASK = 1
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a good plugin, one that cannot be imported, and one that is no task."""
    (tmp_path / "famcli_demo_plugin.py").write_text(PLUGIN)
    info = tmp_path / "famcli_demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: famcli-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[famcli.tasks]\n"
        "demo = famcli_demo_plugin:Demo\n"
        "broken = famcli_demo_missing:Task\n"
        "number = famcli_demo_plugin:NOT_A_TASK\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_our_own_task_is_found_as_any_plugin_is() -> None:
    assert available_tasks()["passkey"].name == "passkey"
    assert load_task("passkey", {"trials": "3"}).options.trials == 3


def test_training_takes_its_words_from_a_tasks_plugin(installed: None) -> None:
    words = words_of("passkey", "description", "filler", "key_line", "question")
    assert "\n".join(words) == load_task("passkey", {}).template
    assert "\n".join(words_of("qasper", "question", "cue")) in load_task("qasper", {}).template
    for task, message in (("demo", "task 'demo' says no 'cue'"), ("tasks", "unknown task 'tasks'")):
        with pytest.raises(UserError, match=message):
            words_of(task, "cue")


@pytest.mark.usefixtures("installed")
def test_an_installed_plugin_is_a_task_like_ours() -> None:
    assert issubclass(available_tasks()["demo"], Task)
    task = load_task("demo", {"size": "8"})
    assert (task.name, task.version, task.options.size) == ("demo", 3, 8)
    assert load_task("demo", {}).options.size == 4
    assert task.option_help() == [("size", "4", "how large")]


@pytest.mark.usefixtures("installed")
def test_broken_plugins_warn_and_leave_the_others_usable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tasks = available_tasks()
    assert "demo" in tasks
    assert not {"broken", "number"} & tasks.keys()
    assert "famcli_demo_missing" in caplog.text
    assert "not a famcli.task.Task" in caplog.text


@pytest.mark.usefixtures("installed")
def test_asking_for_one_task_does_not_load_the_others(caplog: pytest.LogCaptureFixture) -> None:
    load_task("demo", {})
    assert not caplog.records
    with pytest.raises(UserError, match=r"task 'broken' .* does not load: .*famcli_demo_missing"):
        load_task("broken", {})


@pytest.mark.usefixtures("installed")
def test_two_plugins_of_one_name_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = tmp_path / "famcli_other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: famcli-other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[famcli.tasks]\ndemo = famcli_other_plugin:Demo\n")
    load_task("passkey", {})
    assert "two plugins are called 'demo'" in caplog.text
    assert "famcli_other_plugin:Demo" in caplog.text
    with pytest.raises(UserError, match=r"two packages install a task 'demo': .*Demo and .*Demo"):
        load_task("demo", {})


def test_a_task_without_options_is_a_task_and_one_that_lacks_what_it_needs_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(Task):
        name, version, summary, metrics = "plain", 1, "no options", (MetricSpec("accuracy"),)

        def samples(self, tokenizer: object, seed: int, limit: int | None) -> list[Sample]:
            return []

    class Nameless(Task):
        pass

    kinds = {"plain": Plain, "nameless": Nameless}
    monkeypatch.setattr(EntryPoint, "load", lambda entry: kinds[entry.name])
    monkeypatch.setattr(
        "famcli.task.finding.entry_points", lambda **_: [EntryPoint(n, f"m:{n}", "famcli.tasks") for n in kinds]
    )
    assert list(available_tasks()) == ["plain"] and available_tasks()["plain"].option_help() == []
    assert "task 'nameless' (m:nameless) lacks name, version, summary, metrics" in caplog.text


@pytest.mark.usefixtures("installed")
def test_wrong_names_and_values_are_explained() -> None:
    with pytest.raises(UserError, match="unknown task 'passky'") as error:
        load_task("passky", {})
    assert "passkey" in str(error.value.hint)
    with pytest.raises(UserError, match="unknown option of task demo: 'sizes'"):
        load_task("demo", {"sizes": "2"})
    with pytest.raises(UserError, match="task demo: option 'size' must be an even number, not '3'") as error:
        load_task("demo", {"size": "3"})
    assert error.value.hint == "for example -o size=4"


def test_the_contract_imports_nothing_heavy() -> None:
    """Listing tasks must be quick: no torch; numpy only with a task that needs it."""
    code = "import sys, famcli.task; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_one_stop_string_is_not_taken_for_its_characters() -> None:
    with pytest.raises(TypeError, match=r"stop=\('END',\)"):
        Generate(Prompt(("say",)), 3, stop="END")  # type: ignore[arg-type]
