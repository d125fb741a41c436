"""famcli from Python: the same runs as the command line makes, nothing printed, and models that read in flat memory."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import save_hub_model
from made_runs import passkey_run
from small_runs import journal_without_times, without_times
from test_checkpoint import save_small

import famcli
from famcli.cli.main import main
from famcli.evaluation.record import load_record
from famcli.task import load_task

ROOT = Path(__file__).parent.parent
OPTIONS = {"lengths": [350, 400], "trials": 1}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model over bytes, ``fam``, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32)


def test_importing_is_light_and_silent_and_compare_is_a_function_whatever_is_imported_later() -> None:
    code = (
        "import sys, famcli; print(*({'torch', 'numpy', 'pandas', 'click', 'rich'} & set(sys.modules)), sep='')\n"
        "import famcli.compare.selection, famcli.reports.formats, logging\n"
        "logging.getLogger('famcli.models').warning('nobody asked')\n"
        "print([name for name in famcli.__all__ if not hasattr(famcli, name)], callable(famcli.compare))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("\n[] True\n", "")


def test_a_call_makes_the_run_that_the_command_makes(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam", "-o", "lengths=350,400", "-o", "trials=1"]
    assert main([*command, "--seed", "3", "--limit", "1", "--output", "typed", "--json"]) == 0
    (typed,) = (load_record(Path(run["path"])) for run in json.loads(capfd.readouterr().out)["runs"])
    for model in ("fam", famcli.load_model("fam")):
        output = f"called-{type(model).__name__}"
        (called,) = famcli.evaluate(model, ["passkey"], options=OPTIONS, seed=3, limit=1, output=output)
        assert without_times(called) == without_times(typed)
        journals = [journal_without_times(run.path / "samples.jsonl") for run in (called, typed)]
        assert journals[0] == journals[1] and len(journals[0]) == 1
        (again,) = famcli.evaluate(model, "passkey", options=OPTIONS, seed=3, limit=1, output=output)
        assert again == load_record(called.path) == called, "a finished run is given back"
    assert capfd.readouterr() == ("", "")


def test_documents_are_limited_and_splits_chosen_as_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("validation", "test"):
        row = {"url": f"http://example.org/{split}", "short_book_title": split, "text": f"{split} " * 40}
        other = {**row, "url": f"{row['url']}-2"}
        Path("books").mkdir(exist_ok=True)
        Path(f"books/{split}.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    words = ["--task", "pg19", "--data", "books", "--split", "validation", "--limit-documents", "1", "--json"]
    assert main(["eval", "--model", "fam", *words]) == 0
    (typed,) = json.loads(capsys.readouterr().out)["runs"]
    bounds = {"split": "validation", "limit_documents": 1}
    (called,) = famcli.evaluate("fam", "pg19", data="books", output="called", **bounds)
    assert (called.run_id, called.samples, called.limit_documents) == (typed["run_id"], 1, 1)
    (made,) = famcli.evaluate("fam", load_task("pg19", {"data": "books", "split": "validation"}), limit_documents=1)
    assert made.run_id == called.run_id
    with pytest.raises(famcli.UserError, match="every task has its own already"):
        famcli.evaluate("fam", load_task("pg19", {"data": "books"}), split="validation")


def test_only_progress_is_printed_and_only_if_asked_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("famcli"), "handlers", [logging.NullHandler()])  # as in a new process
    save_small(Path("bswa"), "bswa", block_size=32)
    untrained = "bswa,attention=fam,fam_length=4"
    (run,) = famcli.evaluate(untrained, "passkey", options=OPTIONS)
    assert capfd.readouterr() == ("", "")
    assert run.model["fam"] == "no FAM adapter"
    famcli.evaluate(untrained, "passkey", options=OPTIONS, fresh=True, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{untrained} on passkey: 2 samples" in err and "no FAM adapter" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "fm"}, "unknown model 'fm'"),
        ({"tasks": []}, "no task is given"),
        ({"tasks": "paskey"}, "unknown task 'paskey'"),
        ({"options": {"lenght": 3}}, "option of task passkey: 'lenght'"),
        ({"options": {"trials": "many"}}, "option 'trials' must be"),
        ({"data": "sample"}, "no task here takes data"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit_documents": 0}, "limit of documents must be at least 1"),
        ({"split": "test"}, "no task here has data with splits"),
        ({"truncate": "lef", "max_context": 300}, "unknown side to truncate 'lef'"),
        ({"on_error": "go"}, "unknown value of on_error 'go'"),
        ({"max_context": 100}, "more than the context of 100"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"model": ["fam", "bswa"]}, "model must be a spec, or what load_model gave, not list"),
        ({"options": "lengths=1k"}, "options must be a mapping, not str"),
        ({"limit": "2"}, "limit must be a whole number, not '2'"),
        ({"tasks": (), "suite": "quik"}, "unknown suite 'quik'"),
        ({"tasks": (), "suite": []}, "no task is given"),
    ],
)
def test_what_is_wrong_is_a_user_error_and_writes_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(famcli.UserError, match=message):
        famcli.evaluate(**{"model": "fam", "tasks": "passkey", **arguments})
    assert not Path("results").exists()


def test_a_suite_is_the_runs_that_the_command_makes_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.yaml").write_text(
        "models: [bswa-tiny]\ntasks:\n"
        "  - {task: passkey, options: {lengths: [350], trials: 1}}\n"
        "  - {task: pg19, data: sample, limit_documents: 1}\n"
    )
    assert main(["eval", "--suite", "s.yaml", "--task", "passkey", "-o", "trials=2", "--model", "fam", "--json"]) == 0
    typed = [run["run_id"] for run in json.loads(capsys.readouterr().out)["runs"]]
    called = famcli.evaluate("fam", "passkey", suite="s.yaml", options={"trials": 2}, output="called")
    assert [run.run_id for run in called] == typed and len(typed) == 3
    loaded = famcli.evaluate(famcli.load_model("fam"), suite=["s.yaml"], output="called")
    assert [run.task["name"] for run in loaded] == ["passkey", "pg19"] and loaded[1].run_id == typed[2]


def test_what_of_a_suite_does_not_fit_is_left_out_as_by_the_command(caplog: pytest.LogCaptureFixture) -> None:
    save_hub_model(Path("llama"), max_position_embeddings=600)
    short = "{task: passkey, options: {lengths: [400, 64k], trials: 1}}"
    long = "{task: passkey, options: {lengths: 64k}}"
    Path("s.yaml").write_text(f"tasks: [{short}, {long}]")
    (run,) = famcli.evaluate("llama", suite="s.yaml")
    assert [one["what"] for one in run.left_out] == ["length 65536, position start"]
    assert "llama on passkey: nothing of it fits, and it is left out" in caplog.text
    Path("s.yaml").write_text(f"tasks: [{long}]")
    with pytest.raises(famcli.UserError, match="nothing of the suite fits the model llama"):
        famcli.evaluate("llama", suite="s.yaml")


def test_a_loaded_model_has_its_device_and_a_made_task_its_options() -> None:
    model, task = famcli.load_model("fam"), load_task("passkey", {"lengths": "400", "trials": "1"})
    with pytest.raises(famcli.UserError, match="is loaded already"):
        famcli.evaluate(model, "passkey", dtype="float32")
    with pytest.raises(famcli.UserError, match="every task has its own already"):
        famcli.evaluate(model, task, options={"trials": 3})
    made, named = famcli.evaluate(model, [task, "passkey"], options={"lengths": 512, "trials": 2})
    assert [cell["length"] for run in (made, named) for cell in run.cells] == [400, 512]
    assert (made.samples, named.samples) == (1, 2)


def test_a_class_that_no_file_holds_is_refused() -> None:
    """Its run id could not tell an edited scorer from the one before."""

    class Typed(type(load_task("passkey", {}))):  # type: ignore[misc]
        pass

    Typed.__module__ = "nowhere"
    with pytest.raises(famcli.UserError, match="no file holds the source of its class Typed"):
        famcli.evaluate("fam", Typed, options=OPTIONS)
    assert len(famcli.evaluate("fam", Typed, options=OPTIONS, fresh=True)) == 1
    Typed.__module__ = __name__
    (run,) = famcli.evaluate("fam", Typed, options=OPTIONS)
    assert run.task["source_sha256"]


def test_a_comparison_prints_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runs = famcli.evaluate("fam", "passkey", options=OPTIONS)
    runs += famcli.evaluate("fam,block_size=64", "passkey", options=OPTIONS)
    assert main(["compare", "--baseline", "fam"]) == 0
    told = capsys.readouterr()
    comparison = famcli.compare(baseline="fam")
    lines = [line.rstrip() for line in (told.out + told.err).splitlines()]
    assert str(comparison).splitlines() == lines
    assert len(famcli.compare(*runs).rows) == len(famcli.compare(runs[0].path, runs[1].run_id).rows) == 2
    assert main(["compare", "--baseline", "fam", "--format", "markdown"]) == 0
    assert comparison.render("markdown") == capsys.readouterr().out
    assert "<table>" in comparison._repr_html_() and "<html" not in comparison._repr_html_()
    passkey_run(Path("made"), "fam-tiny", {(1024, "start"): [1, 1, 1, 0]})
    for held, words in ((0.95, "does not remember at 1k"), (0.75, "remembers to at least 1k")):
        first = str(famcli.compare(output="made", held=held)).splitlines()[0]
        assert words in first
        assert main(["compare", "--output", "made", "--held", str(held)]) == 0
        assert capsys.readouterr().out.splitlines()[0] == first
    for held in (0, 2):
        with pytest.raises(famcli.UserError, match=f"held must be a score above 0 and at most 1, not {held}"):
            famcli.compare(output="made", held=held)
    with pytest.raises(famcli.UserError, match="unknown format 'pdf'"):
        comparison.render("pdf")
    with pytest.raises(famcli.UserError, match="unknown group 'size'"):
        famcli.compare(by="size")  # type: ignore[arg-type]
    with pytest.raises(famcli.UserError, match="no finished runs in nowhere"):
        famcli.compare(output="nowhere")


@pytest.mark.parametrize("fields", ["", ",attention=bswa,memory_segments=1"])
def test_reading_on_keeps_no_graph_and_one_size(fields: str) -> None:
    model = famcli.load_model(f"fam{fields}")
    state, sizes = model.decoder.start(batch=1), set()
    for _ in range(8):
        latents, state = model.decoder.read(torch.zeros(1, 64, dtype=torch.long), state)
        assert latents.grad_fn is None and not latents.requires_grad
        assert not any(tensor.requires_grad for layer in state.layers for tensor in layer.values())
        sizes.add(state.nbytes)
    assert len(sizes) == 1
    assert not any(weight.requires_grad for weight in model.decoder.parameters())


def run_code(code: str, names: dict[str, Any]) -> str:
    """What the code prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs", "exec"), names)
    return out.getvalue()


def test_the_code_of_the_docs_prints_what_they_say() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```python") >= 5
    names: dict[str, Any] = {}
    for code, printed in blocks:
        assert run_code(code, names) == printed, code


def test_the_notebook_is_valid_and_runs() -> None:
    notebook = json.loads((ROOT / "examples" / "recall_curve.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and isinstance(notebook["metadata"], dict)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        wants = {"cell_type", "id", "metadata", "source"}
        assert cell.keys() == wants | ({"execution_count", "outputs"} if cell["cell_type"] == "code" else set())
        assert re.fullmatch(r"[\w-]{1,64}", cell["id"]) and all(isinstance(line, str) for line in cell["source"])
    names: dict[str, Any] = {}
    shown = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace('"4k", "8k", "16k"', '"2k"').replace("TRIALS = 5", "TRIALS = 1")
            shown[cell["id"]] = run_cell(code.replace("-tiny", "-tiny,block_size=1024"), names)
    assert shown["samples"].loc["fam-tiny,block_size=1024"].to_dict() == {1024: 1.0, 2048: 1.0}
    assert shown["samples"].loc["bswa-tiny,block_size=1024"].to_dict() == {1024: 1.0, 2048: 0.0}
    assert shown["curves"]._repr_svg_().startswith("<svg") and "<table>" in shown["compare"]._repr_html_()


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """The value of its last line, as a notebook shows it."""
    *lines, last = ast.parse(code).body
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None
