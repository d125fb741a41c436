"""OpenAI MRCR: which of several answers to one and the same request in a long chat is to be said again.

Multi-round co-reference resolution, after Vodrahalli et al. 2024, arXiv 2409.12640.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from famcli.errors import UserError
from famcli.metrics.mrcr import prefixed_ratio
from famcli.seams import special_of
from famcli.task import DataField, DataSchema, Encoder, Generate, Generated, Message, MetricSpec, Prompt, Sample, option

from .documents import DocumentOptions, DocumentTask, generation_budget, no_answers, text_id, unique_ids
from .evenly import evenly
from .hub import HubDataset
from .rows import Row

HUB = HubDataset(
    repo="openai/mrcr",
    revision="main",
    files=("*needle/*.parquet",),
    licence="MIT",
    citation="OpenAI 2025, MRCR; after Vodrahalli et al. 2024, Michelangelo, arXiv 2409.12640",
    split="train",
)

SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
SAYS = "{speaker}: "
NEXT = "\n\n"
CUE = "Assistant:"
"""How a chat is written where there is no chat template: as the examples in the data write theirs, with blank lines."""

SMALLEST = 625
"""Characters of the smallest cell; each next one has twice as many. Chats of the official bin from 4,096 to 8,192
tokens have up to 40,000, and so on."""
LONGEST_BUDGET = 100_000


def cell_of(characters: int) -> int:
    """The most characters of the cell that a chat is in."""
    most = SMALLEST
    while most < characters:
        most *= 2
    return most


def parse_numbers(text: str) -> tuple[int, ...]:
    """``2,8`` as sorted numbers; empty for all that the data has."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts):
        raise ValueError("whole numbers such as 2,8, or empty")
    return tuple(sorted({int(part) for part in parts}))


def parse_cells(text: str) -> tuple[int, ...]:
    """``40000,80000`` as the cells of these sizes; empty for all that the data has."""
    try:
        sizes = parse_numbers(text)
    except ValueError:
        sizes = (0,)
    if wrong := [size for size in sizes if cell_of(size) != size]:
        near = cell_of(wrong[0])
        raise ValueError(f"cells such as {near},{2 * near}: 40000, what is half of it, a quarter, twice, four times")
    return sizes


def parse_budget(text: str) -> int:
    """Characters."""
    if not re.fullmatch("0*[1-9][0-9]{0,5}", text) or int(text) > LONGEST_BUDGET:
        raise ValueError(f"a whole number from 1 to {LONGEST_BUDGET}")
    return int(text)


@dataclass(frozen=True)
class MRCROptions(DocumentOptions):
    """Options of ``MRCR``."""

    needles: tuple[int, ...] = option("", "chats with so many needles, 2,4,8; empty: all there are", parse_numbers)
    characters: tuple[int, ...] = option(
        "", "cells of chats up to so many characters, 40000,80000; empty: all there are", parse_cells
    )
    budget: int = option("8192", "room for an answer: tokens of so many characters of English", parse_budget)


@dataclass(frozen=True)
class Turn:
    """A message of the data."""

    role: str
    text: str


@dataclass(frozen=True)
class Item:
    """A row.

    Attributes:
        id: a name for it.
        turns: the chat, which ends with what is asked.
        answer: the right one, the prefix in front.
        prefix: what an answer is to begin with.
        needles: how many answers in the chat are to one request.
        cell: see ``cell_of``.
        details: for the record.
    """

    id: str
    turns: tuple[Turn, ...]
    answer: str
    prefix: str
    needles: int
    cell: int
    details: dict[str, int]


class MRCR(DocumentTask):
    """Asks for one of several like answers in a chat, by its number.

    ``sequence_ratio`` is the official score, ``prefixed_ratio``. ``prefix`` is the share of answers that begin with the
    letters they are to begin with: all others have a ratio of 0.
    """

    name = "mrcr"
    version = 1
    summary = "says again one of 2, 4 or 8 answers to the same request in a long chat (OpenAI MRCR)"
    metrics = (MetricSpec("sequence_ratio"), MetricSpec("prefix"))
    template = "\n".join((SAYS, NEXT, CUE, *SPEAKERS.values()))
    hub = HUB
    Options = MRCROptions
    options: MRCROptions
    schema = DataSchema(
        fields=(
            DataField("prompt", "a list of messages, or its JSON as text", "the chat: objects of role and content"),
            DataField("answer", "text", "the right answer, with the letters in front"),
            DataField("random_string_to_prepend", "text", "the letters that an answer is to begin with"),
            DataField("n_needles", "a whole number", "how many answers in the chat are to the same request"),
            DataField("desired_msg_index", "a whole number", "for the record", required=False),
        ),
        example={
            "prompt": json.dumps(
                [
                    {"role": "user", "content": "write a line about snow"},
                    {"role": "assistant", "content": "Snow has closed the harbour."},
                    {"role": "user", "content": "write a line about snow"},
                    {"role": "assistant", "content": "Snow lay on the ferry."},
                    {
                        "role": "user",
                        "content": "Prepend q7Zk2 to the 1st (1 indexed) line about snow. "
                        "Do not include any other text in your response.",
                    },
                ]
            ),
            "answer": "q7Zk2Snow has closed the harbour.",
            "random_string_to_prepend": "q7Zk2",
            "n_needles": 2,
        },
        also="the parquet files of openai/mrcr as they are published",
    )

    @cached_property
    def items(self) -> list[Item]:
        """The wanted rows, cell by cell; read once, and no others are kept: they are large.

        Raises:
            UserError: a row does not fit, or none is in a cell that was asked for.
        """
        found, there = list[Item](), set[tuple[int, int]]()
        for row in self.dataset.rows:
            item = _item(row)
            there.add((item.needles, item.cell))
            if self._wants(item.needles, item.cell):
                found.append(item)
        self._check_there(there)
        ids = unique_ids(item.id for item in found)
        named = [replace(item, id=name) for name, item in zip(ids, found, strict=True)]
        return sorted(named, key=lambda item: (item.needles, item.cell))

    def _wants(self, needles: int, cell: int) -> bool:
        wanted = ((self.options.needles, needles), (self.options.characters, cell))
        return all(not asked or value in asked for asked, value in wanted)

    def _check_there(self, there: set[tuple[int, int]]) -> None:
        """Raises ``UserError`` where there is no row of what an option asks for."""
        for name, known in zip(("needles", "characters"), map(set, zip(*there, strict=True)), strict=True):
            if missing := [value for value in getattr(self.options, name) if value not in known]:
                raise UserError(
                    f"task mrcr: no row has {missing[0]} {name} in {self.dataset.provenance.name}",
                    f"there are: -o {name}={','.join(map(str, sorted(known)))}",
                )
        if not any(self._wants(*cell) for cell in there):
            raise UserError(
                f"task mrcr: no row of {self.dataset.provenance.name} has both these needles and these characters",
                "leave out one of the options",
            )

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        _item(row)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all cells. Nothing is drawn."""
        chat, budget = special_of(tokenizer).turns is not None, generation_budget(tokenizer, self.options.budget)
        return [
            Sample(
                id=item.id,
                cell=_cell(item),
                reference=item.answer,
                request=partial(request, item, budget, chat),
                score=partial(score, item),
                details=item.details,
            )
            for item in evenly(self.items, lambda item: (item.needles, item.cell), limit)
        ]


def _cell(item: Item) -> dict[str, int | str | float]:
    """Needles in words: what a model remembers to is a number of characters."""
    return {"needles": f"{item.needles} needle{'s' * (item.needles != 1)}", "characters": item.cell}


def _item(row: Row) -> Item:
    if not row.has("answer"):
        raise no_answers(row, "answer")
    turns, needles = _turns(row), row.integer("n_needles")
    if needles < 1:
        row.fail("n_needles", f"must be at least 1, not {needles}")
    answer, prefix = row.text("answer"), row.text("random_string_to_prepend")
    asked = json.dumps([(turn.role, turn.text) for turn in turns])
    return Item(
        id=f"{needles}-{text_id(asked + answer)}",
        turns=turns,
        answer=answer,
        prefix=prefix,
        needles=needles,
        cell=cell_of(sum(len(turn.text) for turn in turns)),
        details={"desired_msg_index": row.integer("desired_msg_index")} if row.has("desired_msg_index") else {},
    )


def _turns(row: Row) -> tuple[Turn, ...]:
    """The messages of a row; the last is the user's.

    Raises:
        DataError: they are no chat.
    """
    messages: Any = row.optional("prompt")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError) as error:
            row.fail("prompt", f"must be a list of messages in JSON: {error}")
    found = [_turn(one) for one in messages] if isinstance(messages, list) else []
    turns = [turn for turn in found if turn]
    if not turns or len(turns) < len(found):
        row.fail("prompt", f"must be a list of messages with role ({', '.join(SPEAKERS)}) and content")
    if turns[-1].role != "user":
        row.fail("prompt", f"must end with a message of the user, not of the {turns[-1].role}")
    return tuple(turns)


def _turn(message: Any) -> Turn | None:
    if not isinstance(message, dict) or message.get("role") not in SPEAKERS:
        return None
    text = message.get("content")
    return Turn(message["role"], text) if isinstance(text, str) and text.strip() else None


def request(item: Item, budget: int, chat: bool) -> Generate:
    """The chat: the turns of a chat template, or written down, where an answer ends when the user speaks again."""
    segments, messages = list[str](), list[Message]()
    for turn in item.turns:
        segments.append(SAYS.format(speaker=SPEAKERS[turn.role]))
        messages.append(Message(turn.role, len(segments)))
        segments += [turn.text, NEXT]
    prompt = Prompt((*segments, CUE), messages=tuple(messages))
    if chat:
        return Generate(prompt, budget)
    return Generate(prompt, budget, (NEXT + SAYS.format(speaker=SPEAKERS["user"]).rstrip(),), skip_blank_lines=True)


def score(item: Item, answer: Generated) -> dict[str, float]:
    """See ``MRCR``."""
    return {
        "sequence_ratio": prefixed_ratio(answer.text, item.answer, item.prefix),
        "prefix": float(answer.text.startswith(item.prefix)),
    }
