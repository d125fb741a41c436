"""Prompts, options and answers as lm-evaluation-harness and transformers cut the joined text, with six tokenizers."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from asked_samples import answers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.registry import find_model
from famcli.evaluation.prompts import prompt_tokens, special_tokens_of
from famcli.evaluation.runner import evaluate
from famcli.seams import FramedEncoder
from famcli.task import Choose, Generate, Generated, Prompt, load_task

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

MARK = "\u2581"
CORPUS = [
    "The pass key is 71432. Remember it. 71432 is the pass key.",
    "What is the pass key? The pass key is",
    "A dog ran far. No one saw it again.\n\nQuestion: Who ran?\nAnswer: A dog",
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them.",
] * 20
CHAT = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[bot]\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<unk>"]


def byte_level(*first: Any) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return made


def joins_stops_and_breaks() -> tokenizers.Tokenizer:
    """As Llama 3's: digits by three, and a full stop with the line breaks behind it."""
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([text + ".\n\n" for text in CORPUS], trainer)
    return made


def llama_2() -> tokenizers.Tokenizer:
    """SentencePiece's BPE with a mark before the whole text, in the form of Llama 2's ``tokenizer.json``."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in CORPUS for line in text.split("\n") if line]),
        model_writer=made, vocab_size=420, model_type="bpe", byte_fallback=True, minloglevel=2,
        remove_extra_whitespaces=False, split_digits=True, hard_vocab_limit=False,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    vocab = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(vocab, key=vocab.__getitem__)
        for cut in range(1, len(piece))
        if not piece.startswith("<") and piece[:cut] in vocab and piece[cut:] in vocab
    ]
    found = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    found.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return found


def unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement=MARK, prepend_scheme="always")
    alphabet = sorted({letter for text in CORPUS for letter in text} | set("0123456789[]/-|\n"))
    made.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def word_pieces() -> tokenizers.Tokenizer:
    """White space is lost, as in BERT's."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    alphabet = list("0123456789[]/-|")
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return made


def single_bytes() -> tokenizers.Tokenizer:
    vocab = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = tokenizers.Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


MAKERS = {
    "byte-level BPE": byte_level,
    "stops and breaks": joins_stops_and_breaks,
    "SentencePiece BPE": llama_2,
    "Unigram": unigram,
    "WordPiece": word_pieces,
    "bytes": single_bytes,
    "single digits": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
}
kinds = pytest.mark.parametrize("kind", MAKERS)


@cache
def definition(kind: str, begins: bool) -> str:
    made = MAKERS[kind]()
    made.add_special_tokens(SPECIAL)
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return str(made.to_str())


@cache
def tokenizer(kind: str, begins: bool = False) -> HubTokenizer:
    return HubTokenizer(definition(kind, begins), {}, {"chat_template": CHAT})


def save_model(directory: Path, kind: str, begins: bool) -> None:
    """A random model with such a tokenizer, as the hub keeps them."""
    directory.mkdir()
    (directory / "tokenizer.json").write_text(definition(kind, begins), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": CHAT}
    (directory / "tokenizer_config.json").write_text(json.dumps(config | ({"bos_token": "<s>"} if begins else {})))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=tokenizer(kind).vocab_size, head_dim=8, initializer_range=0.2, **shape)
    ).save_pretrained(directory)


QUESTIONS = (
    ("Who ran?", ["A cat", "A dog", "7143", "No one"]),
    ("12 or 345?", ["12", "345", "There is the pass key", "- it"]),
)
STORIES = ("A dog ran far. No one saw it again.", "Here we go: 12" + " and back." * 150 + "\n")


def article(number: int, story: str) -> dict[str, Any]:
    fields = ("question", "options", "question_unique_id", "gold_label")
    asked = [dict(zip(fields, (*question, f"{number}-{i}", 1), strict=True)) for i, question in enumerate(QUESTIONS)]
    return {"article_id": str(number), "article": story, "questions": asked}


@kinds
@pytest.mark.parametrize("begins", [False, True])
def test_options_weigh_what_lm_eval_finds(kind: str, begins: bool, tmp_path: Path) -> None:
    save_model(tmp_path / "model", kind, begins)
    data = tmp_path / "data.jsonl"
    articles = [article(number, story) for number, story in enumerate(STORIES)]
    data.write_text("".join(json.dumps(row) + "\n" for row in articles))
    model = find_model(str(tmp_path / "model")).load(torch.device("cpu"), torch.float32)
    record = evaluate(model, load_task("quality", {"data": str(data)}), results=tmp_path / "results")
    lm = HFLM(pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=1, add_bos_token=begins)
    found = answers(record.path)
    for row in articles:
        for question in row["questions"]:
            context = f"{row['article']}\n\nQuestion: {question['question']}\nAnswer:"
            requests = [Instance("loglikelihood", {}, (context, f" {option}"), 0) for option in question["options"]]
            theirs = [likelihood for likelihood, _ in lm.loglikelihood(requests, disable_tqdm=True)]
            ours = found[question["question_unique_id"]]["answer"]["log_likelihoods"]
            assert ours == pytest.approx(theirs, rel=1e-4)


@kinds
@settings(deadline=None, max_examples=40)
@given(
    words=st.lists(st.sampled_from(["dog", " far", ".", "\n", "12", " ", "7", "key.", "\n\n", " A", "é"]), min_size=1),
    repeat=st.sampled_from([1, 7, 700]),
    question=st.sampled_from(["\n\nWho ran?", "3 dogs", " ran", "\n", ".\n", "way"]),
    chat=st.booleans(),
)
def test_a_prompt_in_parts_is_cut_as_one_text(
    kind: str, words: list[str], repeat: int, question: str, chat: bool
) -> None:
    ours, document = tokenizer(kind, True), "".join(words) * repeat
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(definition(kind, True)))
    request = Generate(Prompt((document, question), document=0), 5)
    read = prompt_tokens(request, ours, special_tokens_of(ours, chat))
    whole = f"[user]\n{document}{question}\n[bot]\n" if chat else document + question
    assert read.take(0, len(read)).tolist() == theirs(whole, add_special_tokens=not chat)["input_ids"]


@kinds
@pytest.mark.parametrize(("begins", "chat"), [(False, False), (True, False), (True, True)])
def test_passkey_counts_all_and_knows_the_right_answer(kind: str, begins: bool, chat: bool) -> None:
    ours = tokenizer(kind, begins)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(definition(kind, begins)))
    special = special_tokens_of(ours, chat)
    task = load_task("passkey", {"lengths": "512,700", "position": "start,random,grid", "trials": "2"})
    for sample in task.samples(FramedEncoder(ours, special), 0, None):
        request = sample.request()
        assert isinstance(request, Generate) and sample.prompt_tokens is not None
        read = prompt_tokens(request, ours, special)
        assert len(read) == sample.prompt_tokens == int(sample.cell["length"]) - 10
        asked = "The pass key is" + ("\n[bot]\n" if chat else "")
        right = theirs(asked + ("" if chat else " ") + sample.reference, add_special_tokens=False)["input_ids"]
        answer = right[len(theirs(asked, add_special_tokens=False)["input_ids"]) :]
        assert read.take(0, len(read)).tolist()[-3:] == theirs(asked, add_special_tokens=False)["input_ids"][-3:]
        assert sample.score(Generated(sample.reference, (*answer, 0)))["token_accuracy"] == 1


@kinds
def test_filler_of_passkey_is_cut_as_one_text(kind: str) -> None:
    ours = tokenizer(kind)
    (sample,) = load_task("passkey", {"lengths": "1k", "trials": "1"}).samples(ours, 0, None)
    request = sample.request()
    assert isinstance(request, Generate)
    (filler,) = (segment for segment in request.prompt.segments if not isinstance(segment, str))
    whole, before = ours.encode("a\n" + " ".join([CORPUS[3]] * 60)), ours.encode("a\n")
    assert len(filler) > 400 and filler.tolist() == whole[len(before) :][: len(filler)]


@kinds
@pytest.mark.parametrize("before", ["The pass key is", "Question: Who ran?\nAnswer:", "A dog"])
def test_what_is_given_before_an_option_is_cut_with_it_and_not_weighed(kind: str, before: str) -> None:
    texts = ((" 714", "32. Remember"), (" A dog ran f", "ar"))
    given, options = zip(*texts, strict=True)
    cut = tokenizer(kind)
    tokens = prompt_tokens(Choose(Prompt((before,)), options, given), cut)
    prompt = np.concatenate(tokens.parts).tolist()
    for option, own, pair in zip(tokens.options, tokens.given, texts, strict=True):
        assert [*prompt, *option] == cut.encode(before + "".join(pair))
        read = cut.encode(before + pair[0])
        assert [*prompt, *option[:own]] == read[: len(prompt) + own]
        assert 0 <= own < len(option) and read[: len(prompt) + own + 1] != [*prompt, *option[: own + 1]]


MADE = {
    "mqar": {"pairs": "4", "lengths": "700", "queries": "2", "trials": "2"},
    "babilong": {"data": "sample", "background": "sample", "lengths": "3k", "prompt": "bare"},
    "ruler": {"kind": "niah_single_1,niah_single_2,niah_multikey_2,niah_multivalue,vt", "lengths": "3k", "trials": "1"},
}


@kinds
@pytest.mark.parametrize(("begins", "chat"), [(True, False), (True, True)])
def test_made_texts_have_their_lengths(kind: str, begins: bool, chat: bool) -> None:
    """As the runner reads them, all that stands around them included: never more, and less than a unit short."""
    ours = tokenizer(kind, begins)
    special = special_tokens_of(ours, chat)
    for name, options in MADE.items():
        for sample in load_task(name, options).samples(FramedEncoder(ours, special), 0, 8):
            request = sample.request()
            assert isinstance(request, Generate)
            total = len(prompt_tokens(request, ours, special)) + request.max_new_tokens
            length = int(sample.cell["length"])
            unit = {"mqar": 12, "babilong": 1, "ruler": 130}[name]
            assert length - unit < total <= length, sample.id
            assert sample.prompt_tokens in (None, length - request.max_new_tokens)


@kinds
@pytest.mark.parametrize(("begins", "chat"), [(True, False), (True, True)])
def test_a_pair_begins_each_block(kind: str, begins: bool, chat: bool) -> None:
    ours = tokenizer(kind, begins)
    special = special_tokens_of(ours, chat)
    framed = FramedEncoder(ours, special)
    (first, *_) = load_task("remember", {"pairs": "3", "block": "64", "trials": "1"}).samples(framed, 0, None)
    request = first.request()
    assert isinstance(request, Generate)
    read = prompt_tokens(request, ours, special)
    asked = read.take(3 * 64, len(read)).tolist()
    blocks = [read.take(start, start + 64).tolist() for start in (64, 128)]
    key = first.id.rpartition("/")[2]
    assert ours.decode(asked).strip().startswith(key)
    assert all(ours.decode(block).lstrip()[3:5].replace(" ", "").startswith(":") for block in blocks)
