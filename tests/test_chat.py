"""Chat templates as transformers renders them, without the text going through; what a tokenizer puts before a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from small_models import small_config, small_decoder
from tokenizers.processors import TemplateProcessing

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.decoders import save_checkpoint
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.opening import open_checkpoint
from famcli.errors import UserError

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}\n{%- if strftime_now is defined %}\n    {%- set day = strftime_now('%d %b %Y') %}\n{%- else %}\n"
    "    {%- set day = '26 Jul 2024' %}\n{%- endif %}\n{{- 'Today: ' + day + '\\n' }}\n"
    "{%- for message in messages %}\n    {%- generation %}{{- '<h>' + message.role + '</h>' + message.content | trim }}"
    "{%- endgeneration %}\n{%- endfor %}\n{%- if add_generation_prompt %}{{- '<h>assistant</h>' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}"
    "<turn>{{ m.role }}\n{{ m['content'] }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
    "{{ {'a': '<é>'} | tojson if tools else '' }}"
)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize("source", [CHATML, LLAMA3, GEMMA], ids=["chatml", "llama3", "gemma"])
def test_prompts_are_what_transformers_renders(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    from famcli.checkpoints.rendering import TODAY

    class Frozen(type(TODAY)):  # type: ignore[misc]
        @classmethod
        def now(cls) -> Any:
            return TODAY

    monkeypatch.setattr(chat_template_utils, "datetime", Frozen)
    question = "What is it? {{ not_a_variable }}"
    (expected,), _ = chat_template_utils.render_jinja_template(
        [[{"role": "user", "content": question}]],
        chat_template=source,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    before, after = template(source).around()
    assert before + question + after == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "cannot be rendered"),
        ("{{ raise_exception('wrong roles') }}", "cannot be rendered: wrong roles"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered"),
        ("hello", "holds the user's text 0 times"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "holds the user's text 2 times"),
    ],
)
def test_templates_that_cannot_be_used_say_why(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        template(source).around()
    assert caught.value.hint == "leave out --chat-template"


def save_bytes_tokenizer(directory: Path, begins: bool, **settings: Any) -> tokenizers.Tokenizer:
    """A tokenizer of letters with special tokens; ``begins``: it puts ``<s>`` before a text."""
    letters = {chr(i): i - 28 for i in range(32, 127)} | {"\n": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"<s>": 0, "</s>": 1, "<end>": 2, **letters}, []))
    tokenizer.add_special_tokens(["<s>", "</s>", "<end>"])
    if begins:
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", **settings}))
    return tokenizer


def read(directory: Path, **fields: Any) -> HubTokenizer:
    return HubTokenizer.from_file(directory / "tokenizer.json", {"bos_token_id": 0, "eos_token_id": 1, **fields})


@pytest.mark.parametrize(
    ("begins", "settings", "expected"),
    [
        (True, {}, (0,)),
        (False, {}, ()),
        (False, {"add_bos_token": True}, ()),
        (True, {"add_bos_token": False}, (0,)),
        (True, {"bos_token": {"__type": "AddedToken", "content": "<s>", "special": True}, "add_bos_token": True}, (0,)),
    ],
)
def test_prompts_begin_as_transformers_begins_them(
    tmp_path: Path, begins: bool, settings: dict[str, Any], expected: tuple[int, ...]
) -> None:
    from transformers import PreTrainedTokenizerFast

    save_bytes_tokenizer(tmp_path, begins, tokenizer_class="PreTrainedTokenizerFast", **settings)
    tokenizer = read(tmp_path)
    assert tokenizer.prompt_start == expected
    ids = PreTrainedTokenizerFast.from_pretrained(tmp_path)("ab")["input_ids"]
    assert tuple(ids[: ids.index(tokenizer.encode("a")[0])]) == expected


def test_answers_end_with_any_token_that_ends_a_turn(tmp_path: Path) -> None:
    save_bytes_tokenizer(tmp_path, False)
    assert read(tmp_path).answer_ends == {1}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    tokenizer = read(tmp_path)
    assert (tokenizer.answer_ends, tokenizer.end_of_text) == ({1, 2}, 1)
    assert read(tmp_path, eos_token_id=None).end_of_text == 2


@pytest.mark.parametrize(
    ("settings", "stated", "expected"),
    [
        ({"eos_token": "<end>"}, 1, {1, 2}),
        ({"eos_token": "<end>"}, 2, {2}),
        ({"eos_token": "<end>"}, None, {2}),
        ({"eos_token": {"__type": "AddedToken", "content": "<end>"}}, [1], {1, 2}),
        ({"eos_token": "of no tokenizer"}, 1, {1}),
        ({"eos_token": None}, 1, {1}),
        ({"eos_token": None}, None, set()),
        ({"chat_template": CHATML.replace("<|im_end|>", "<end>")}, 1, {1, 2}),
        ({"chat_template": CHATML.replace("<|im_end|>", "  <end>")}, 1, {1, 2}),
        ({"chat_template": CHATML.replace("<|im_end|>", "{{ eos_token }}"), "eos_token": "<end>"}, None, {2}),
        ({"chat_template": CHATML}, 1, {1}),
        ({"chat_template": "{{ raise_exception('no') }}"}, 1, {1}),
        ({"chat_template": "{% if messages[2] %}{{ raise_exception('one question') }}{% endif %}" + GEMMA}, 1, {1, 2}),
        ({"chat_template": "{{ messages[0].content }}<end>"}, 1, {1}),
    ],
)
def test_answers_end_where_any_file_or_the_template_says(
    tmp_path: Path, settings: dict[str, Any], stated: Any, expected: set[int]
) -> None:
    save_bytes_tokenizer(tmp_path, False, **settings)
    tokenizer = read(tmp_path, eos_token_id=stated)
    assert tokenizer.answer_ends == expected
    assert tokenizer.end_of_text == next(iter(expected), None)


def test_old_tokenizers_name_their_special_tokens_in_a_file_of_their_own(tmp_path: Path) -> None:
    save_bytes_tokenizer(tmp_path, False)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "<end>"}))
    tokenizer = read(tmp_path, bos_token_id=None, eos_token_id=None)
    assert (tokenizer.text_start, tokenizer.answer_ends, tokenizer.end_of_text) == (0, {2}, 2)


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "named"])
def test_what_stands_beside_a_tokenizer_survives_a_save(tmp_path: Path, where: str) -> None:
    settings: dict[str, Any] = {}
    if where == "tokenizer_config.json":
        settings["chat_template"] = CHATML
    elif where == "named":
        settings["chat_template"] = [{"name": "rag", "template": "x"}, {"name": "default", "template": CHATML}]
    save_bytes_tokenizer(tmp_path, True, **settings)
    if where == "chat_template.jinja":
        (tmp_path / where).write_text(CHATML)
    tokenizer = read(tmp_path, eos_token_id=[1, 2])
    decoder = small_decoder(small_config("fam", vocab_size=tokenizer.vocab_size), torch.float32)
    save_checkpoint(decoder, tokenizer, tmp_path / "model")
    again = open_checkpoint(tmp_path / "model").tokenizer
    for name in ("name", "prompt_start", "answer_ends", "end_of_text", "text_start", "chat_template"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert again.chat_template == ChatTemplate(CHATML, {"bos_token": "<s>", "eos_token": "</s>"})


def test_a_tokenizer_without_a_beginning_has_none_after_a_save(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    save_bytes_tokenizer(tmp_path, True, chat_template="{{ bos_token }}[user]{{ messages[0]['content'] }}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML + "{{ bos_token }}"}))
    tokenizer = HubTokenizer.from_file(tmp_path / "tokenizer.json", {"eos_token_id": 1})
    fields = tokenizer.save(tmp_path / "again")
    again = HubTokenizer.from_file(tmp_path / "again" / "tokenizer.json", fields)
    assert again.chat_template == tokenizer.chat_template and again.text_start == tokenizer.text_start == 1


def test_a_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    save_bytes_tokenizer(tmp_path, True)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff{{ x }}")
    with pytest.raises(UserError, match=r"cannot read .*chat_template\.jinja"):
        read(tmp_path)
