"""A system prompt: where transformers puts it, refused where a template has no place for it, and part of the run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks, answers, asked, story
from famcli.tasks.passkey import PassKey
from small_runs import small_model

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.eval import command as eval_command
from famcli.cli.main import main
from famcli.compare.pairing import facts
from famcli.errors import UserError
from famcli.evaluation.prompts import special_tokens_of
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.reports.html.rerun import rerun_command

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
INTO_THE_TURN = (
    "{% set first = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ first if loop.index0 < 2 }}{{ m.content }}"
    "{% endif %}{% endfor %}<model>"
)
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
DROPS = "{{ messages[-1].content }}"
DEFAULT = "{% if messages[0].role != 'system' %}<system>You help.{% endif %}" + CHATML


class ChatTokenizer(ByteTokenizer):
    """Bytes with a chat template."""

    name = "chat-bytes"

    def __init__(self, source: str = CHATML) -> None:
        super().__init__()
        self.chat_template = ChatTemplate(source, {})  # type: ignore[assignment]


def run(results: Path, **settings: Any) -> RunRecord:
    model: LoadedModel = replace(small_model(), tokenizer=ChatTokenizer())
    samples = [asked(f"q{n}", story(1, 80), f"\n{'why' * n}?", ()) for n in range(3)]
    return evaluate(model, Asks(samples), results=results, **settings)


@pytest.mark.parametrize("source", [CHATML, INTO_THE_TURN, DEFAULT], ids=["chatml", "in the turn", "default"])
@pytest.mark.parametrize("system", ["Be brief.", " {{ x }}\n"])
def test_it_stands_where_transformers_puts_it(source: str, system: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = [{"role": "system", "content": system}, {"role": "user", "content": "Why?"}]
    (expected,), _ = render_jinja_template([chat], chat_template=source, add_generation_prompt=True)
    before, after = ChatTemplate(source, {}).around(system=system)
    assert before + "Why?" + after == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [(REFUSES, "with a system prompt, .* no system"), (DROPS, "chat template shows no system prompt")],
)
def test_a_template_without_a_place_for_it_is_named(source: str, words: str) -> None:
    tokenizer = ChatTokenizer(source)
    assert special_tokens_of(tokenizer, True).texts == ("", "")
    with pytest.raises(UserError, match=words) as error:
        special_tokens_of(tokenizer, True, system="Be brief.")
    assert error.value.hint == "leave out --system-prompt"


def test_a_chat_with_one_of_its_own_is_refused() -> None:
    special = special_tokens_of(ChatTokenizer(), True, system="Be brief.")
    assert special.turns is not None
    assert special.turns(("user", "assistant", "user"))[0] == "<|system|>Be brief.<|end|><|user|>"
    with pytest.raises(UserError, match="a chat has a system prompt of its own"):
        special.turns(("system", "user"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"system_prompt": "x"}, "--system-prompt is given without a chat template"),
        ({"system_prompt": " \n", "chat_template": True}, "the system prompt is empty"),
        ({"system_prompt": "x\udcff", "chat_template": True}, "the system prompt is not UTF-8"),
    ],
)
def test_it_is_not_ignored(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(tmp_path, **settings)


def test_it_is_part_of_the_run(tmp_path: Path) -> None:
    plain, brief, long = (
        run(tmp_path, chat_template=True, **({"system_prompt": text} if text else {}))
        for text in (None, "Be brief.", "Be long.")
    )
    assert len({plain.run_id, brief.run_id, long.run_id}) == 3
    assert "system_prompt" not in plain.context and brief.context["system_prompt"] == "Be brief."
    assert bytes(brief.context["before"]) == b"<|system|>Be brief.<|end|><|user|>"
    differing = {name for name, value in facts(brief).items() if facts(long).get(name) != value}
    assert differing == {"system prompt"} and "system prompt" not in facts(plain)
    tokens = {line["prompt_tokens"] for line in answers(brief.path).values()}
    more = len("<|system|>Be brief.<|end|>")
    assert {count - more for count in tokens} == {line["prompt_tokens"] for line in answers(plain.path).values()}


@pytest.mark.parametrize("system", ["Be brief.", "@home you are\nbrief", "@@", "-x 'y'"])
def test_the_rerun_command_has_it(tmp_path: Path, system: str) -> None:
    task = PassKey.from_options({"lengths": "400", "trials": "1"})
    model = replace(small_model(), tokenizer=ChatTokenizer())
    record = evaluate(model, task, results=tmp_path, chat_template=True, system_prompt=system)
    words = shlex.split(rerun_command(record))
    assert eval_command.make_context("eval", words[2:]).params["system_prompt"] == system


def test_a_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("\nBe brief.\nBe kind.\n\n")
    words = ["--task", "passkey", "--model", "fam-tiny", "--chat-template", "--system-prompt"]
    given = eval_command.make_context("eval", [*words, f"@{file}"])
    assert given.params["system_prompt"] == "\nBe brief.\nBe kind."
    assert main(["eval", *words, f"@{tmp_path / 'none.txt'}"]) == 2
    assert "none.txt" in capsys.readouterr().err
