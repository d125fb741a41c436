"""Answers that begin with blank lines or with thoughts, and the variables of chat templates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from asked_samples import Asks, answers
from small_runs import RuleDecoder, loaded
from transformers import LlamaConfig, LlamaForCausalLM

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation.generation import Thinking, _GrowingAnswer
from famcli.evaluation.prompts import special_tokens_of
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.reports.html.rerun import rerun_command
from famcli.task import Generate, Prompt, Sample

QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OPENED = "{{ messages[0].content }}\n[bot]<think>\n"


def says(script: str, template: str | None = None) -> LoadedModel:
    """A model that answers ``script`` whatever it is told around it, then ends the text."""

    class Scripted(ByteTokenizer):
        chat_template = None if template is None else ChatTemplate(template, {})

    prompts: list[int] = []

    def rule(text: bytes) -> int:
        prompts.append(len(text))
        said = len(text) - prompts[0]
        return script.encode()[said] if said < len(script) else 256

    return replace(loaded(RuleDecoder(rule)), tokenizer=Scripted())


def ask(model: LoadedModel, path: Path, *, skip: bool = False, budget: int = 12, **settings: Any) -> RunRecord:
    request = Generate(Prompt(("GO",)), budget, ("\n",), skip)
    sample = Sample("x", {}, "zyx", lambda: request, lambda answer: {"length": float(len(answer.text))})
    return evaluate(model, Asks([sample]), results=path, **settings)


def answer(record: RunRecord) -> dict[str, Any]:
    return answers(record.path)["x"]


def test_empty_answers_are_counted_and_blank_lines_can_be_skipped(tmp_path: Path) -> None:
    record = ask(says("\n \n zyx\nmore"), tmp_path / "as they are")
    assert answer(record)["output"] == "" and record.cost["answers_empty"] == 1
    assert answer(record)["answer"]["token_ids"] == [ord("\n")]
    record = ask(says("\n \n zyx\nmore"), tmp_path / "skipped", skip=True)
    assert answer(record)["output"] == "zyx" and "answers_empty" not in record.cost
    assert bytes(answer(record)["answer"]["token_ids"]) == b"\n \n zyx\n"


@pytest.mark.parametrize(("budget", "cut"), [(3, True), (4, False)])
def test_answers_cut_at_the_budget_are_counted(tmp_path: Path, budget: int, cut: bool) -> None:
    """The line break that ends the answer is the fourth token."""
    record = ask(says("zyx\n"), tmp_path, budget=budget)
    assert answer(record)["output"] == "zyx"
    assert record.cost.get("answers_cut", 0) == cut and bool(answer(record)["answer"].get("cut")) == cut
    ended = ask(says("zyx"), tmp_path / "ended")
    assert "answers_cut" not in ended.cost


@pytest.mark.parametrize(
    ("script", "template", "thought"),
    [
        ("<think>\nhm\nhm\n</think>\n\nzyx\n", None, "<think>\nhm\nhm\n</think>"),
        ("\n<think></think>zyx", None, "\n<think></think>"),
        ("hm\n</think>\nzyx\n", OPENED, "hm\n</think>"),
        ("zyx\n", None, ""),
        ("\n\nzyx\n", None, ""),
    ],
)
def test_thoughts_are_no_part_of_an_answer(tmp_path: Path, script: str, template: str | None, thought: str) -> None:
    chat = template is not None
    record = ask(says(script, template), tmp_path, thinking=64, chat_template=chat)
    found = answer(record)
    assert found["output"] == "zyx" and "cut" not in found["answer"]
    assert found["answer"].get("thinking_tokens", 0) == len(thought)
    assert bytes(found["answer"]["token_ids"]).decode() == script.removeprefix(thought)
    assert record.cost["tokens_generated"] == len(script) and record.context["thinking"] == 64
    assert record.run_id != ask(says(script, template), tmp_path, chat_template=chat).run_id


def test_a_thought_without_end_is_an_empty_answer_that_was_cut(tmp_path: Path) -> None:
    record = ask(says("<think>" + "hm " * 40), tmp_path, thinking=20)
    assert (record.cost["answers_empty"], record.cost["answers_cut"]) == (1, 1)
    assert answer(record)["answer"] == {"token_ids": [], "cut": True, "thinking_tokens": 20}
    record = ask(says("<think>hm"), tmp_path, thinking=30)
    assert record.cost["answers_empty"] == 1 and "answers_cut" not in record.cost


def test_thoughts_between_special_tokens_are_seen() -> None:
    """They are no text when they are decoded."""
    words = {word: i for i, word in enumerate(["<think>", "</think>", "a", "b", "c"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    made.add_special_tokens(["<think>", "</think>"])
    growing = _GrowingAnswer(Generate(Prompt(("x",)), 2), HubTokenizer(made.to_str(), {}), Thinking(9, False))
    for token in (0, 2, 2, 2, 1, 3, 4, 2):
        growing.add(token)
    generated = growing.generated()
    assert (generated.text.replace(" ", ""), generated.token_ids, generated.thinking_tokens) == ("bc", (3, 4), 5)


# Variables of chat templates


@pytest.mark.parametrize("arguments", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_variables_reach_the_template_as_in_transformers(arguments: dict[str, Any]) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    (expected,), _ = render_jinja_template(
        [[{"role": "user", "content": "Why?"}]], chat_template=QWEN3, add_generation_prompt=True, **arguments
    )
    before, after = ChatTemplate(QWEN3, {}).around(arguments)
    assert before + "Why?" + after == expected


def test_variables_are_part_of_a_run(tmp_path: Path) -> None:
    model = says("zyx\n", QWEN3)
    plain = ask(model, tmp_path, chat_template=True)
    told = ask(model, tmp_path, chat_template=True, chat_arguments={"enable_thinking": True}, thinking=7)
    assert told.context["chat_template_args"] == {"enable_thinking": True}
    assert plain.run_id != told.run_id and "chat_template_args" not in plain.context
    assert "--chat-template-arg enable_thinking=true --strip-thinking 7" in rerun_command(told)


def test_a_variable_that_the_template_lacks_is_refused() -> None:
    tokenizer = says("", QWEN3).tokenizer
    with pytest.raises(UserError, match="has no variable 'thinking'") as error:
        special_tokens_of(tokenizer, True, {"thinking": False})
    assert error.value.hint == "--chat-template-arg takes one of: enable_thinking"
    with pytest.raises(UserError, match="without a chat template") as error:
        special_tokens_of(tokenizer, False, {"enable_thinking": False})
    assert error.value.hint == "add --chat-template"


# The command


def save_chain(directory: Path, follows: dict[str, str]) -> None:
    """A model whose every letter decides the next alone; the text ends after any other."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["</s>", "<think>", "</think>", *alphabet])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["</s>", "<think>", "</think>"])
    directory.mkdir()
    made.save(str(directory / "tokenizer.json"))
    template = "{{ messages[0].content }}:{% if enable_thinking is false %}<think></think>{% endif %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    size = -(-len(vocab) // 8) * 8
    shape = {"num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8, "intermediate_size": 8}
    config = LlamaConfig(vocab_size=size, hidden_size=size, tie_word_embeddings=False, eos_token_id=0, **shape)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight[0] = 0.5
        for token, after in follows.items():
            model.lm_head.weight[made.encode(after).ids[0], made.encode(token).ids[0]] = 1.0
    model.save_pretrained(directory)


@pytest.mark.parametrize(
    ("opening", "extra", "output"),
    [
        ({":": "\n"}, (), ""),
        ({":": "\n"}, ("-o", "skip_blank_lines=true"), "zyx"),
        ({":": "<think>", "<think>": "\n", "\n": "</think>", "</think>": "z"}, ("--chat-template",), ""),
        (
            {":": "<think>", "<think>": "\n", "\n": "</think>", "</think>": "z"},
            ("--chat-template", "--chat-template-arg", "enable_thinking=false"),
            "zyx",
        ),
        (
            {":": "<think>", "<think>": "\n", "\n": "</think>", "</think>": "z"},
            ("--chat-template", "--strip-thinking", "99"),
            "zyx",
        ),
    ],
)
def test_the_command_says_which_answers_are_empty_and_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opening: dict[str, str], extra: tuple[str, ...], output: str
) -> None:
    save_chain(tmp_path / "model", {"\n": "z", "z": "y", "y": "x", **opening})
    data = tmp_path / "rows.jsonl"
    row = {"id": "q", "pid": "q", "input": "Who ran?\n\nA dog ran far.", "output": "zyx"}
    data.write_text(json.dumps(row) + "\n")
    command = ["eval", "--task", "qasper", "--model", str(tmp_path / "model"), "--data", str(data), *extra]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    (file,) = tmp_path.glob("out/*/samples.jsonl")
    assert json.loads(file.read_text())["output"] == output
    assert ("1 of 1 answers are empty; " in said.err) == (not output)
    assert ("empty answers" in said.out) == (not output)
    if not output:
        way = "--strip-thinking" if "--chat-template" in extra else "-o skip_blank_lines=true"
        assert way in said.err


def test_a_variable_without_a_template_is_refused_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam-tiny", "--chat-template-arg", "enable_thinking=false"]
    assert main(command) == 2
    assert "--chat-template-arg is given without a chat template" in capsys.readouterr().err
