"""The run id: what other packages bring is part of it by its source, and famcli's own names stay as they are."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from famcli.tasks.passkey import PassKey
from small_models import small_config, small_decoder
from small_runs import loaded, small_model

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.sources import LoadedModel
from famcli.compare.pairing import comparable
from famcli.evaluation.asking import Limits
from famcli.evaluation.identity import context_fields, new_record
from famcli.evaluation.record import RunRecord, load_record
from famcli.files import source_sha256
from famcli.models.memories import memory_entry_points
from famcli.seams import NO_SPECIAL_TOKENS
from famcli.task import Task

TASK = """
from dataclasses import dataclass
from famcli.task import MetricSpec, Task, option

@dataclass(frozen=True)
class Options:
    data: str = option("", "a path", str)

class Mine(Task):
    name, version, summary, metrics, Options = "mine", 1, "a task", (MetricSpec("accuracy"),), Options

    def samples(self, tokenizer, seed, limit):
        return []
"""
MEMORY = """
from dataclasses import dataclass
from famcli.models.memories.bswa import Bswa

@dataclass(frozen=True)
class Mine(Bswa):
    name = "mine"
"""
MODEL = """
from small_runs import RuleDecoder

class Mine(RuleDecoder):
    pass
"""


@pytest.fixture(autouse=True)
def _imported() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plugin_of_others"):
            del sys.modules[name]
    memory_entry_points.cache_clear()


def module_at(file: Path, text: str | None = None) -> ModuleType:
    """``file``, written where there is a ``text``, imported as if for the first time."""
    if text is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    spec = importlib.util.spec_from_file_location("plugin_of_others", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["plugin_of_others"] = module
    spec.loader.exec_module(module)
    return module


def record(model: LoadedModel, task: Task) -> RunRecord:
    """That of a run that has not begun."""
    context = context_fields(model.tokenizer, None, None, NO_SPECIAL_TOKENS, False)
    return new_record(model, task, Path("results"), 0, Limits(), context)


def run_id(model: LoadedModel, task: Task | None = None) -> str:
    return record(model, task or PassKey.from_options({})).run_id


@pytest.mark.parametrize("name", ["passkey-fam-tiny-3a0bb6a6d318", "passkey-bswa-tiny-763993fa4a49"])
def test_our_own_runs_keep_the_names_that_the_readme_shows(name: str) -> None:
    demo = PassKey.from_options({"lengths": "1k,4k,8k,16k,64k", "trials": "10"})
    model = name.removeprefix("passkey-").rpartition("-")[0]
    assert run_id(load_model(model, device="cpu"), demo) == name
    assert f"results/{name}/run.json" in (Path(__file__).parent.parent / "README.md").read_text()


def test_a_path_that_is_written_otherwise_finds_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, a name that was given and another last part of the path are other runs."""
    monkeypatch.chdir(tmp_path)
    task, model = PassKey.from_options({}), replace(small_model(), name="./mine", spec="./mine")
    first = record(model, task)
    first.path.mkdir(parents=True)
    first.save()
    assert first.run_id.startswith("passkey-.-mine-")
    found = record(replace(model, name="/models/mine/", spec="/models/mine/"), task)
    assert (found.run_id, found.path, found.model["name"]) == (first.run_id, first.path, "./mine")
    for other in (
        replace(model, name="/models/other", spec="/models/other"),
        replace(model, name="best", spec="./mine"),
        replace(model, name="/models/mine", spec="/models/mine", weights_sha256="f" * 64),
    ):
        assert record(other, task).run_id != first.run_id
    (first.path / "run.json").write_text("{}")
    assert record(replace(model, name="mine", spec="mine"), task).run_id.startswith("passkey-mine-")


def test_the_version_of_famcli_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(small_model())
    monkeypatch.setattr("famcli.version.__version__", "9.9.9")
    monkeypatch.setattr("famcli.evaluation.record.__version__", "9.9.9")
    assert run_id(small_model()) == before


def test_an_edited_task_is_another_run(tmp_path: Path) -> None:
    def id_with(text: str) -> str:
        return run_id(small_model(), module_at(tmp_path / "task.py", text).Mine.from_options({}))

    first = id_with(TASK)
    assert id_with(TASK) == first
    assert id_with(TASK + "\nWORD = 1\n") != first


def test_an_edited_model_is_another_run(tmp_path: Path) -> None:
    def id_with(text: str) -> str:
        return run_id(loaded(module_at(tmp_path / "model.py", text).Mine(lambda text: 0)))

    first = id_with(MODEL)
    assert id_with(MODEL) == first
    assert id_with(MODEL + "\nWORD = 1\n") != first


def test_an_edited_memory_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[famcli.memories]\nmine = plugin_of_others:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    memory_entry_points.cache_clear()

    def id_with(text: str) -> str:
        memory = module_at(tmp_path / "memory.py", text).Mine()
        config = replace(small_config("bswa", vocab_size=257), attention="mine", memory=memory)
        return run_id(loaded(small_decoder(config, torch.float32)))

    first = id_with(MEMORY)
    assert id_with(MEMORY) == first
    assert id_with(MEMORY + "\nWORD = 1\n") != first


def test_every_module_of_a_package_counts_and_nothing_beside_it(tmp_path: Path) -> None:
    package = tmp_path / "site" / "mine"
    for name in ("__init__.py", "inner/__init__.py", "inner/scoring.py", "task.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(TASK)
    kind = module_at(package / "inner" / "scoring.py").Mine
    first = source_sha256(kind)
    (tmp_path / "site" / "other.py").write_text("")
    (package / "notes.txt").write_text("")
    assert source_sha256(kind) == first
    (package / "task.py").write_text(TASK + "# edited\n")
    assert source_sha256(kind) not in (first, None)


def test_what_is_ours_and_what_has_no_source_has_no_hash() -> None:
    assert source_sha256(type("Missing", (), {"__module__": "no_such_module"})) is None
    assert source_sha256(PassKey) is None


def test_edited_data_is_another_run_and_the_same_data_elsewhere_is_not(tmp_path: Path) -> None:
    kind = module_at(tmp_path / "task.py", TASK).Mine

    def id_of(path: Path) -> str:
        return run_id(small_model(), kind.from_options({"data": str(path)}))

    for name in ("rows.jsonl", "elsewhere/other.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    first, folder = id_of(tmp_path / "rows.jsonl"), id_of(tmp_path / "elsewhere")
    assert id_of(tmp_path / "elsewhere" / "other.jsonl") == first
    assert id_of(tmp_path / "missing.jsonl") not in (first, id_of(tmp_path / "missing too.jsonl"))
    (tmp_path / "rows.jsonl").write_text("{} \n")
    assert id_of(tmp_path / "rows.jsonl") != first
    (tmp_path / "elsewhere" / ".hidden").write_text("")
    assert id_of(tmp_path / "elsewhere") == folder
    (tmp_path / "elsewhere" / "other.jsonl").rename(tmp_path / "elsewhere" / "renamed.jsonl")
    assert id_of(tmp_path / "elsewhere") != folder


def test_runs_of_a_task_before_and_after_an_edit_are_not_compared(tmp_path: Path) -> None:
    def saved(text: str) -> Any:
        made = record(small_model(), module_at(tmp_path / "task.py", text).Mine.from_options({}))
        made = replace(made, path=tmp_path / made.run_id)
        made.save()
        return load_record(made.path)

    first, second = saved(TASK), saved(TASK + "\nWORD = 1\n")
    assert comparable(first, first) == []
    (difference,) = comparable(first, second)
    assert difference.startswith("task source: ")
