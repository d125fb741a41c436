"""Names that users give to models, and short names that tables give to long specs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import FAM, passkey_record
from made_runs import passkey_run
from small_runs import small_model

from famcli.checkpoints.naming import split_name
from famcli.checkpoints.registry import find_model
from famcli.cli.main import main
from famcli.compare.selection import select
from famcli.compare.side_by_side import compare
from famcli.errors import UserError
from famcli.evaluation.record import load_record, same_spec
from famcli.evaluation.runner import evaluate
from famcli.reports.formats import FORMATS, to_csv, to_markdown
from famcli.reports.html.rerun import rerun_command
from famcli.reports.naming import LONGEST, short_names, with_short_names
from famcli.reports.tokenizer_names import short_tokenizers
from famcli.task import load_task

QUICK = ("-o", "lengths=512", "-o", "trials=1")


def test_a_name_is_no_field_and_changes_no_answer(tmp_path: Path) -> None:
    source = find_model("fam-tiny,name=mine,memory_segments=1")
    assert (source.name, source.spec) == ("mine", "fam-tiny,memory_segments=1")
    task = load_task("passkey", {"lengths": "512", "trials": "1"})
    plain, named = small_model(), small_model()
    object.__setattr__(named, "name", "mine")
    runs = [evaluate(model, task, results=tmp_path) for model in (plain, named)]
    ids = [run.run_id.rpartition("-") for run in runs]
    assert ids[0][2] == ids[1][2] and ids[1][0] == "passkey-mine"
    assert load_record(runs[1].path).model == {**runs[0].model, "name": "mine", "spec": plain.name}
    assert "spec" not in json.loads((runs[0].path / "run.json").read_text())["model"], "old records stay as they are"
    words = shlex.split(rerun_command(runs[1]))
    assert words[2:6] == ["--model", plain.name, "--as", "mine"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fam-tiny,name=a,name=b", "the name is given twice"),
        ("fam-tiny,name=", "'' cannot be the name"),
        ("fam-tiny,name=../up", "'../up' cannot be the name"),
        ("fam-tiny,name=a b", "'a b' cannot be the name"),
        (f"fam-tiny,name={'x' * 41}", "cannot be the name"),
        ("fam-tiny,sinks=1,name=bswa-tiny", "cannot be called 'bswa-tiny'"),
        ("bswa-tiny,name=fam-tiny", "cannot be called 'fam-tiny'"),
    ],
)
def test_names_that_cannot_be(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_model(spec)


def test_a_model_may_be_called_what_it_is() -> None:
    assert find_model("fam-tiny,name=fam-tiny").spec == "fam-tiny"
    assert split_name("./name=x,sinks=1") == ("./name=x,sinks=1", None)
    assert same_spec("a,b=1,c=2", "a,c=2,b=1") and not same_spec("a,b=1", "b=1,a")


def test_one_name_is_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["eval", "--task", "passkey", "--output", str(tmp_path), *QUICK]
    assert main([*given, "--model", "fam-tiny,name=x", "--model", "bswa-tiny,name=x"]) == 2
    assert "two models are called x: fam-tiny and bswa-tiny" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    passkey_run(tmp_path, "mine", FAM, model={"spec": "fam-tiny,sinks=1,block_size=64"})
    (run,) = tmp_path.iterdir()
    run.rename(tmp_path / "passkey-mine-0123456789ab")
    assert main([*given, "--model", "fam-tiny,sinks=2", "--as", "mine"]) == 2
    assert "another model called mine" in capsys.readouterr().err
    two = [*given, "--model", "fam-tiny", "--model", "bswa-tiny"]
    assert main([*two, "--as", "y"]) == 2
    hint = capsys.readouterr().err.splitlines()[-1]
    typed = shlex.split(hint.removeprefix("hint: name each: "))
    assert typed == ["--model", "fam-tiny,name=y", "--model", "bswa-tiny,name=NAME2"]
    assert main([*given, *typed, "--dry-run"]) == 0, "what the hint says can be typed"
    assert len(list(tmp_path.iterdir())) == 1


def test_runs_of_two_models_of_one_name_are_not_set_side_by_side(tmp_path: Path) -> None:
    passkey_run(tmp_path / "a", "mine", {(1024, "start"): [1]}, model={"spec": "fam-tiny,sinks=1"})
    passkey_run(tmp_path / "b", "mine", {(2048, "start"): [1]}, model={"spec": "fam-tiny,sinks=2"})
    with pytest.raises(UserError, match=r"two models are called mine: .*sinks=1 .*sinks=2"):
        select([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path)


def test_a_typo_gets_few_names(tmp_path: Path) -> None:
    for number in range(9):
        passkey_run(tmp_path, f"model-{number}", FAM)
    with pytest.raises(UserError, match="unknown run or model 'modle-3'") as caught:
        select(["modle-3"], tmp_path)
    hint = caught.value.hint or ""
    assert "model-3" in hint and hint.count("model-") == 3 and "passkey" not in hint
    with pytest.raises(UserError) as caught:
        select(["???"], tmp_path)
    assert caught.value.hint == f"famcli list runs --output {tmp_path} shows what there is"


def test_long_specs_are_cut_to_where_they_differ_and_spelled_once() -> None:
    shared = "block_size=1024,memory_segments=3,sinks=1"
    long = [f"/models/x/my-llama,attention={kind},{shared}" for kind in ("fam", "bswa")]
    names = short_names([*long, "fam-tiny"])
    assert names == {
        long[0]: "my-llama,attention=fam",
        long[1]: "my-llama,attention=bswa",
        "fam-tiny": "fam-tiny",
    }
    comparison = compare([passkey_record(name, FAM) for name in long], baseline=long[0])
    page = to_markdown(with_short_names(comparison))
    for name in long:
        assert page.count(f"{names[name]} is {name}\n") == 1
        assert not any(name in line for line in page.splitlines() if line.startswith(("|", "-")))
    assert long[0] in to_csv(comparison), "programs read names in full"


HASHES = ("hub-0d24109d7c331d04", "hub-0d24a76c2f7c181e")


def test_long_tokenizers_are_cut_to_where_they_differ_and_spelled_once(tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, f"m{i}", FAM, model={"tokenizer": name}) for i, name in enumerate(HASHES)]
    comparison = compare(runs)
    assert comparison.answer
    assert {recall.task for recall in comparison.answer.recalls} == {"passkey"}, "a model has one tokenizer"
    assert not any("hub" in cost.cells for cost in comparison.costs)
    for name in ("markdown", "html", "latex"):
        page = FORMATS[name](with_short_names(comparison))
        for short, whole in zip(("hub-0d241", "hub-0d24a"), HASHES, strict=True):
            assert page.count(whole) == page.count(f"{short} is {whole}, of m{HASHES.index(whole)}") == 1
            assert f"tokenizer {short})" in page
    assert HASHES[0] in to_csv(comparison), "programs read names in full"
    with pytest.raises(UserError, match="they differ in tokenizer: hub-") as caught:
        compare(runs, baseline="m0")
    assert "--force" in (caught.value.hint or "") and "repeat" not in (caught.value.hint or "")
    alike = compare([passkey_run(tmp_path / "alike", "m", FAM, model={"tokenizer": HASHES[0]})])
    assert with_short_names(alike) == alike, "nothing is said where tokenizers make no difference"


@given(st.lists(st.from_regex(r"(hub-|my-)?[0-2]{12,14}|bytes|words", fullmatch=True), unique=True))
def test_short_tokenizers_begin_one_name_each(names: list[str]) -> None:
    found = short_tokenizers(names)
    for name, short in found.items():
        assert name.startswith(short)
        assert short == name or [other for other in names if other.startswith(short)] == [name]
    assert all(found.get(name, name) == name for name in ("bytes", "words"))


fields = st.lists(st.sampled_from(["sinks=1", "sinks=2", "fam_length=64", "attention=fam"]), unique=True)
specs = st.builds(
    lambda base, more: ",".join([base, *more]),
    st.sampled_from(["/a/very/long/path/to/some/model", "/another/long/path/to/the/model", "model", "fam-tiny"]),
    fields,
)


@given(st.lists(specs, unique=True))
def test_short_names_are_of_one_model_each(names: list[str]) -> None:
    found = short_names(names)
    assert list(found) == names and len(set(found.values())) == len(names)
    assert all(found[name] == name for name in names if len(name) <= LONGEST)
    assert all(len(short) <= len(name) for name, short in found.items())
