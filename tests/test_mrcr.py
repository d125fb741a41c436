"""The task mrcr: the chat as it is read with and without a chat template, and the official grade on made answers."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from asked_samples import answers
from famcli.tasks.mrcr import MRCR, cell_of
from small_runs import small_model

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.kept_prompts import prompt_of
from famcli.evaluation.prompts import prompt_tokens, special_tokens_of
from famcli.evaluation.runner import evaluate
from famcli.seams import FramedEncoder
from famcli.task import DataError, Generate, Generated, Message, Prompt, Sample

CHAT = [
    {"role": "user", "content": "Examples: {role}"},
    {"role": "user", "content": "write a verse about snow"},
    {"role": "assistant", "content": " White,\n\nwhite. "},
    {"role": "user", "content": "Prepend xY9 to the 1st (1 indexed) verse about snow."},
]
ROW = {
    "prompt": json.dumps(CHAT),
    "answer": "xY9 White,\n\nwhite. ",
    "random_string_to_prepend": "xY9",
    "n_needles": 2,
    "desired_msg_index": 1,
    "total_messages": 4,
    "n_chars": 100,
}
"""As the hub has them."""
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)


class ChatTokenizer(ByteTokenizer):
    """Bytes with a chat template."""

    name = "chat-bytes"
    chat_template = ChatTemplate(CHATML, {})


def model() -> LoadedModel:
    return replace(small_model(), tokenizer=ChatTokenizer())


def samples(path: Path, *rows: dict[str, Any], limit: int | None = None, chat: bool = False, **o: str) -> list[Sample]:
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = ChatTokenizer()
    framed = FramedEncoder(tokenizer, special_tokens_of(tokenizer, chat))
    return MRCR.from_options({"data": str(path), **o}).samples(framed, 0, limit)


def read(sample: Sample, chat: bool) -> str:
    """What a model over bytes reads."""
    tokenizer, request = ChatTokenizer(), sample.request()
    assert isinstance(request, Generate)
    tokens = prompt_tokens(request, tokenizer, special_tokens_of(tokenizer, chat))
    return tokenizer.decode(tokens.take(0, len(tokens)).tolist())


def test_in_a_chat_template_messages_are_turns(tmp_path: Path) -> None:
    """As the template renders the whole chat, messages of one role in a row too."""
    import jinja2

    (sample,) = samples(tmp_path / "rows.jsonl", ROW, chat=True)
    whole = jinja2.Template(CHATML, trim_blocks=True).render(messages=CHAT, add_generation_prompt=True)
    assert read(sample, chat=True) == whole
    request = sample.request()
    assert isinstance(request, Generate) and request.stop == () and not request.skip_blank_lines


def test_without_one_the_chat_is_written_down(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    assert read(sample, chat=False) == (
        "User: Examples: {role}\n\nUser: write a verse about snow\n\nAssistant:  White,\n\nwhite. \n\n"
        "User: Prepend xY9 to the 1st (1 indexed) verse about snow.\n\nAssistant:"
    )
    request = sample.request()
    assert isinstance(request, Generate) and request.stop == ("\n\nUser:",) and request.skip_blank_lines


@pytest.mark.parametrize("chat", [False, True])
def test_a_run_reads_it_so_and_keeps_what_it_read(tmp_path: Path, chat: bool) -> None:
    path = tmp_path / "rows.jsonl"
    (sample,) = samples(path, ROW, chat=chat)
    task = MRCR.from_options({"data": str(path), "budget": "4"})
    run = evaluate(model(), task, results=tmp_path / "results", chat_template=chat, keep_prompts=True)
    kept = prompt_of(run.path, sample.id)
    assert kept is not None and kept[0].before == read(sample, chat)
    entry = answers(run.path)[sample.id]
    assert entry["prompt_tokens"] == len(read(sample, chat))
    assert entry["around"] == (["<|user|>\n", "<|end|>\n<|assistant|>\n"] if chat else [])
    assert entry["prompt_tail"].endswith("verse about snow." if chat else "verse about snow.\n\nAssistant:")


def test_workers_are_told_of_the_chat() -> None:
    """What stands around prompts travels to other processes."""
    special = special_tokens_of(ChatTokenizer(), True)
    sent = pickle.loads(pickle.dumps(special))
    assert special.turns and sent.turns(("user", "assistant", "user")) == special.turns(("user", "assistant", "user"))


def test_a_template_that_takes_no_such_chat_says_so(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    tokenizer = ChatTokenizer()
    tokenizer.chat_template = ChatTemplate(ALTERNATING, {})  # type: ignore[misc]
    request = sample.request()
    assert isinstance(request, Generate)
    with pytest.raises(UserError, match="cannot be rendered: roles must alternate") as error:
        prompt_tokens(request, tokenizer, special_tokens_of(tokenizer, True))
    assert error.value.hint == "leave out --chat-template"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ messages[-1].content }}", r"the text of message 1 \(user\) 0 times"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages[0].content }}",
            r"the text of message 1 \(user\) 2 times",
        ),
        (
            "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
            r"the text of message 2 \(assistant\) before that of the message before it",
        ),
    ],
)
def test_a_template_that_loses_a_message_is_refused(source: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ChatTemplate(source, {}).turns(("user", "assistant", "user"))


@pytest.mark.parametrize(
    ("said", "ratio"),
    [
        ("xY9 White,\n\nwhite. ", 1.0),
        ("xY9 White, black.", SequenceMatcher(None, " White, black.", " White,\n\nwhite. ").ratio()),
        ("xY9", 0.0),
        (" xY9 White,\n\nwhite. ", 0.0),
        ("Sure: xY9 White,\n\nwhite. ", 0.0),
        ("", 0.0),
    ],
)
def test_the_grade_is_the_official_one(tmp_path: Path, said: str, ratio: float) -> None:
    """Worked out behind the prefix, which is to stand at the very beginning."""
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    assert sample.score(Generated(said, ())) == {
        "sequence_ratio": pytest.approx(ratio),
        "prefix": float(said[:3] == "xY9"),
    }
    assert ratio in (0.0, 1.0) or 0.5 < ratio < 0.9


def test_long_answers_are_graded_as_the_matcher_does(tmp_path: Path) -> None:
    """Beyond 200 characters it takes frequent ones for junk; the official grade leaves that on."""
    text = "the snow fell on the ferry and on the mill, " * 20
    (sample,) = samples(tmp_path / "rows.jsonl", {**ROW, "answer": f"xY9{text}"})
    said = text.replace("ferry", "boat")
    graded = sample.score(Generated(f"xY9{said}", ()))["sequence_ratio"]
    assert graded == SequenceMatcher(None, said, text).ratio()
    assert graded != SequenceMatcher(None, said, text, autojunk=False).ratio()


def test_cells_are_of_needles_and_characters(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    long = [*CHAT[:2], {"role": "assistant", "content": "x" * 1000}, CHAT[3]]
    rows = [{**ROW, "n_needles": n, "prompt": json.dumps(chat)} for n in (8, 2) for chat in (CHAT, long)]
    found = samples(path, *rows)
    cells = [("2 needles", 625), ("2 needles", 1250), ("8 needles", 625), ("8 needles", 1250)]
    assert [(one.cell["needles"], one.cell["characters"]) for one in found] == cells
    assert [tuple(one.cell.values()) for one in samples(path, *rows[:1] * 5, *rows, limit=4)] == cells
    assert [tuple(one.cell.values()) for one in samples(path, needles="8", characters="1250")] == [cells[3]]
    with pytest.raises(UserError, match="no row has 4 needles") as error:
        samples(path, needles="4")
    assert error.value.hint == "there are: -o needles=2,8"
    with pytest.raises(UserError, match="both these needles and these characters"):
        samples(path, rows[0], rows[3], needles="8", characters="1250")
    with pytest.raises(UserError, match="option 'characters' must be cells such as 1250,2500"):
        samples(path, characters="1000")


@pytest.mark.parametrize(("characters", "cell"), [(1, 625), (625, 625), (626, 1250), (40_000, 40_000)])
def test_a_cell_holds_up_to_its_characters(characters: int, cell: int) -> None:
    assert cell_of(characters) == cell


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "[{"}, "field 'prompt' must be a list of messages in JSON"),
        ({"prompt": "{}"}, "field 'prompt' must be a list of messages with role"),
        (
            {"prompt": json.dumps([{"role": "tool", "content": "x"}, *CHAT])},
            "field 'prompt' must be a list of messages",
        ),
        ({"prompt": json.dumps(CHAT[:3])}, "field 'prompt' must end with a message of the user, not of the assistant"),
        ({"n_needles": None}, "field 'n_needles' is missing"),
        ({"n_needles": 0}, "field 'n_needles' must be at least 1, not 0"),
        ({"random_string_to_prepend": ""}, "field 'random_string_to_prepend' is empty"),
        ({"answer": None}, "field 'answer' is missing: a split without right answers"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        samples(tmp_path / "rows.jsonl", {**ROW, **changes})


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt(("a", "b"), document=0, messages=(Message("user", 1),)), "messages of a chat and a document"),
        (Prompt(("a",), messages=(Message("tool", 0),)), "a message of 'tool', who is none of"),
        (Prompt(("a",), messages=(Message("user", 1),)), "1 as the segment of a message"),
        (Prompt(("a",), messages=(Message("assistant", 0),)), "does not end with a message of the user"),
    ],
)
def test_what_is_no_chat_is_refused_by_name(tmp_path: Path, prompt: Prompt, words: str) -> None:
    from asked_samples import Asks

    sample = Sample("x", {}, "", lambda: Generate(prompt, 1), lambda answer: {"length": 1.0})
    with pytest.raises(UserError, match=words):
        evaluate(model(), Asks([sample]), results=tmp_path)


def test_the_sample_is_read() -> None:
    found = samples(Path("sample"))
    assert [one.cell["needles"] for one in found] == ["2 needles", "2 needles", "4 needles"]
    assert len({one.id for one in found}) == 3
    for sample in found:
        assert sample.score(Generated(sample.reference, ())) == {"sequence_ratio": 1.0, "prefix": 1.0}
