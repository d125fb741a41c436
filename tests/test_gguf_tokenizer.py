"""Tokenizers out of GGUF metadata give the ids of the tokenizers that were put in."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from gguf_files import LETTERS, VARIED_TEXTS, smollm2, tokenizer_fields
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from famcli.checkpoints.gguf_tokenizer import read_tokenizer
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.opening import open_checkpoint
from famcli.errors import UserError

FILE = Path("model.gguf")
TEXT = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")
BEGIN, END = "<|begin|>", "<|end|>"


def words(name: str) -> pre_tokenizers.PreTokenizer:
    """How the originals cut words: in the library's own way where it has one, else by transformers' patterns."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if name in ("gpt-2", "smollm"):
        digits = [pre_tokenizers.Digits(individual_digits=True)] if name == "smollm" else []
        return pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(name: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer, tokenizer.decoder = words(name), decoders.ByteLevel()
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[BEGIN, END], initial_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, *VARIED_TEXTS * 3], trainer)
    return tokenizer


def random_texts(count: int) -> list[str]:
    """Everything that was ever split wrongly, in any order."""
    draw = random.Random(0)
    pieces = [
        *"abcXYZ 012 \t\n\r.,!?'\"é日本لий🙂\u0301\u00a0\u3000",
        "  ",
        "'s",
        "'LL",
        "\r\n",
        "ﬁ",
        "½",
        "١",
        END,
        "the",
    ]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken"])
def test_byte_level_tokenizers_come_back(name: str) -> None:
    original = byte_level(name)
    types = [3, 3] + [1] * (original.get_vocab_size() - 2)
    fields = tokenizer_fields(original, model="gpt2", pre=name, token_type=types, bos_token_id=0, eos_token_id=1)
    tokenizer = read_tokenizer(fields, "llama", FILE)
    for text in [*VARIED_TEXTS, TEXT, *random_texts(300)]:
        expected = original.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == original.decode(expected)
    assert (tokenizer.text_start, tokenizer.end_of_text, tokenizer.vocab_size) == (0, 1, original.get_vocab_size())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ggml.pre": "gpt-2"}, ()),
        ({"ggml.pre": "gpt-2", "ggml.add_bos_token": True}, (0,)),
        ({"ggml.pre": "llama-bpe"}, (0,)),
        ({"ggml.pre": "llama-bpe", "ggml.add_bos_token": False}, ()),
        ({"ggml.pre": "llama3"}, (0,)),
        ({"ggml.pre": "llama-v3"}, (0,)),
        ({"ggml.pre": "tekken"}, (0,)),
        ({"ggml.pre": "tekken", "ggml.add_bos_token": False}, ()),
        ({"ggml.pre": "qwen2"}, ()),
        ({"ggml.pre": "dbrx"}, ()),
        ({"ggml.pre": "smollm"}, ()),
    ],
)
def test_prompts_begin_as_the_file_says(given: dict[str, Any], expected: tuple[int, ...]) -> None:
    fields = {**tokenizer_fields(byte_level("gpt-2"), model="gpt2", bos_token_id=0, eos_token_id=1), **given}
    assert read_tokenizer(fields, "llama", FILE).prompt_start == expected


def test_special_tokens_are_whole_and_no_text_and_unused_ones_are_none() -> None:
    original = byte_level("gpt-2")
    fields = tokenizer_fields(original, model="gpt2", pre="gpt-2", eos_token_id=1, eot_token_id=0)
    size = original.get_vocab_size()
    fields["ggml.tokens"] = [*fields["ggml.tokens"], "<think>", "[PAD1]", "[PAD2]"]
    fields["ggml.token_type"] = [3, 3, *[1] * (size - 2), 4, 5, 5]
    tokenizer = read_tokenizer(fields, "qwen2", FILE)
    assert tokenizer.vocab_size == size + 1
    assert tokenizer.encode("<think>" + END)[-2:] == [size, 1]
    assert tokenizer.decode([1, size]) == "<think>"
    assert tokenizer.answer_ends == {0, 1}


def test_a_text_cannot_begin_with_a_token_that_is_not_named() -> None:
    fields = tokenizer_fields(byte_level("tekken"), model="gpt2", pre="tekken", eos_token_id=1)
    with pytest.raises(UserError, match=r"begins with the token 'tokenizer\.ggml\.bos_token_id'"):
        read_tokenizer(fields, "llama", FILE)


@pytest.mark.parametrize(
    ("named", "last", "expected"),
    [
        ({}, [], {1}),
        ({"eot_token_id": 5}, [], {1, 5}),
        ({"eom_token_id": 6, "fim_pad_token_id": 7}, [], {1, 6, 7}),
        ({"eos_token_id": 10**6}, [], {1}),
        ({}, ["<|im_end|>"], {1, -1}),
        ({}, ["<|eot_id|>", "<|eom_id|>"], {1, -2, -1}),
        ({}, ["<end_of_turn>", "<start_of_turn>"], {1, -2}),
        ({}, ["<|return|>", "<|call|>"], {-2, -1}),
        ({}, ["<|tool_response>", "</s>"], {1, -2}),
    ],
)
def test_answers_end_where_llama_cpp_ends_them(named: dict[str, int], last: list[str], expected: set[int]) -> None:
    """Its rules, by id and by text; ids below 0 count from the end. END, token 1, is one of its texts."""
    original = byte_level("gpt-2")
    size = original.get_vocab_size() + len(last)
    fields = tokenizer_fields(original, model="gpt2", pre="gpt-2", **named)
    fields["ggml.tokens"] = [*fields["ggml.tokens"], *last]
    assert fields["ggml.tokens"][1] == END
    tokenizer = read_tokenizer(fields, "llama", FILE)
    assert tokenizer.answer_ends == {index % size for index in expected}


def test_special_tokens_of_sentencepiece_have_llama_2s_ids_unless_named() -> None:
    _, fields = sentencepiece_fields()
    bare = {name: value for name, value in fields.items() if not name.endswith("_token_id")}
    for given in (fields, bare):
        tokenizer = read_tokenizer(given, "llama", FILE)
        assert (tokenizer.prompt_start, tokenizer.answer_ends, tokenizer.end_of_text) == ((1,), {2}, 2)


def sentencepiece_fields(**options: Any) -> tuple[Any, dict[str, Any]]:
    """A BPE that SentencePiece trained, and its metadata as llama.cpp's converter writes it."""
    import sentencepiece

    model = io.BytesIO()
    lines = [line for line in TEXT.splitlines() if line.strip()] + ["日本語 Größe русский"] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 2),
        model_writer=model,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        **options,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(trained.vocab_size())
    kinds = {trained.is_unknown: 2, trained.is_control: 3, trained.is_unused: 5, trained.is_byte: 6}
    user_defined = set(options.get("user_defined_symbols", ()))
    types = [next((kind for test, kind in kinds.items() if test(i)), 1) for i in ids]
    tokens = [trained.id_to_piece(i) for i in ids]
    return trained, {
        "ggml.model": "llama",
        "ggml.tokens": tokens,
        "ggml.scores": [trained.get_score(i) for i in ids],
        "ggml.token_type": [4 if token in user_defined else kind for token, kind in zip(tokens, types, strict=True)],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
    }


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokenizers_come_back(prefix: bool) -> None:
    original, fields = sentencepiece_fields(add_dummy_prefix=prefix)
    tokenizer = read_tokenizer({**fields, "ggml.add_space_prefix": prefix}, "llama", FILE)
    for text in [*VARIED_TEXTS, TEXT, *random_texts(300)]:
        if "\u2581" not in text:
            expected = original.encode(text)
            assert tokenizer.encode(text) == expected, text
            assert tokenizer.decode(expected) == text
    assert tokenizer.prompt_start == (1,)


def test_gemma_tokenizers_are_those_of_transformers() -> None:
    """Runs of spaces are tokens, spelled as spaces; scores have no meaning."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    _, fields = sentencepiece_fields(
        add_dummy_prefix=False, user_defined_symbols=["\u2581\u2581", "\u2581\u2581\u2581", "\n\n"]
    )
    spelled = [re.sub("^\u2581+$", lambda run: " " * len(run[0]), token) for token in fields["ggml.tokens"]]
    fields |= {"ggml.tokens": [a if len(b) < 2 else b for a, b in zip(fields["ggml.tokens"], spelled, strict=True)]}
    fields["ggml.scores"] = [-1000.0] * len(spelled)
    theirs, _ = convert_gguf_tokenizer(
        "gemma3",
        {
            "tokenizer_type": "llama",
            "unk_token_id": 0,
            **{name: fields[f"ggml.{name}"] for name in ("tokens", "scores", "token_type")},
        },
    )
    tokenizer = read_tokenizer({**fields, "ggml.add_space_prefix": False}, "gemma3", FILE)
    for text in [*VARIED_TEXTS, TEXT, *random_texts(300)]:
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ggml.model": "bert"}, r"'tokenizer\.ggml\.model' is 'bert'"),
        ({"ggml.model": None}, r"'tokenizer\.ggml\.model' is 'None'"),
        ({"ggml.pre": "default"}, r"'tokenizer\.ggml\.pre' is 'default'"),
        ({"ggml.pre": None}, r"'tokenizer\.ggml\.pre' is 'None'"),
        ({"ggml.tokens": None}, r"lacks the field 'tokenizer\.ggml\.tokens'"),
        ({"ggml.merges": None}, r"lacks the field 'tokenizer\.ggml\.merges'"),
        ({"ggml.tokens": [1, 2]}, r"'tokenizer\.ggml\.tokens' must be a list of type str"),
        ({"ggml.tokens": "abc"}, r"'tokenizer\.ggml\.tokens' must be a list of type str"),
        ({"ggml.merges": [1]}, r"'tokenizer\.ggml\.merges' must be a list of type str"),
        (
            {"ggml.token_type": [1] * 9},
            r"'tokenizer\.ggml\.token_type' has 9 entries, and 'tokenizer\.ggml\.tokens' \d{3}",
        ),
        ({"ggml.scores": [1.0] * 9}, r"'tokenizer\.ggml\.scores' has 9 entries"),
        ({"ggml.merges": ["a zzz"]}, r"are no tokenizer"),
        ({"ggml.model": "llama"}, r"lacks the field 'tokenizer\.ggml\.scores'"),
        ({"ggml.model": "llama", "ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces' is true"),
    ],
)
def test_tokenizers_that_cannot_be_rebuilt_are_named(changes: dict[str, Any], message: str) -> None:
    fields = {**tokenizer_fields(byte_level("gpt-2"), model="gpt2", pre="gpt-2"), **changes}
    with pytest.raises(UserError, match=message):
        read_tokenizer({name: value for name, value in fields.items() if value is not None}, "llama", FILE)


def test_smollm2_has_the_tokenizer_of_transformers() -> None:
    """With digits cut off first, as in the model's own ``tokenizer.json``. transformers leaves that out for GGUF, which
    shows where spaces stand before a digit, and in digits that are several bytes."""
    from transformers import AutoTokenizer

    file = smollm2()
    tokenizer = open_checkpoint(file).tokenizer
    theirs = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).backend_tokenizer
    texts = [text for text in [*VARIED_TEXTS, TEXT, *random_texts(500)] if not re.search(r"\s\s[0-9]", text)]
    plain = [text for text in texts if not any(c.isnumeric() and not c.isascii() for c in text)]
    assert len(plain) > 100
    for text in plain:
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text
    theirs.pre_tokenizer = words("smollm")
    for text in [*VARIED_TEXTS, *random_texts(500), "  12", "\n\n7"]:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == theirs.decode(expected)
    assert tokenizer.encode("12345") == [tokenizer.encode(digit)[0] for digit in "12345"]
    assert isinstance(tokenizer, HubTokenizer)
    assert json.loads(tokenizer.definition)["model"]["type"] == "BPE"
    assert (tokenizer.text_start, tokenizer.end_of_text, tokenizer.prompt_start) == (1, 2, ())
