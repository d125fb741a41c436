"""BABILong: facts of bAbI between the sentences of a long text (Kuratov et al. 2024, arXiv 2402.10790, 2406.10149).

The data is that of the hub's config 0k: facts alone, with a question and its answer. For a length the facts are spread,
in their order, over the places between the sentences of a background text that the user gives, each as likely, and the
last of these sentences is cut so that prompt and answer have the length exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from famcli.errors import UserError
from famcli.fields import parse_lengths
from famcli.task import (
    DataError,
    DataField,
    DataSchema,
    Encoder,
    Generate,
    Generated,
    MetricSpec,
    Prompt,
    Sample,
    option,
)

from .babilong_words import KINDS, is_right
from .background import Background, background_sha256, parse_background
from .choices import some_of
from .documents import DocumentOptions, DocumentTask, generation_budget, text_id, unique_ids
from .drawing import Chance
from .pieces import Ids, going_on, prompt_tokens
from .rows import Row

TEXT = "<context>\n{text}\n</context>\n\nQuestion: {question}"
BARE = "{text}\nQuestion: {question}\nAnswer:"
PROMPTS = {"instructed": TEXT, "bare": BARE}
ANSWER_CHARACTERS = 80
"""Generation budget in characters of English, some 20 tokens of a subword tokenizer as in the official evaluation: qa3
answers in a sentence of 50."""


def parse_text_lengths(text: str) -> tuple[int, ...]:
    """``0k,4k,16k``: as ``parse_lengths``, and 0 for the facts alone."""
    parts = [part.strip().lower() for part in text.split(",")]
    others = [part for part in parts if part not in ("0", "0k")]
    none = (0,) if len(others) < len(parts) else ()
    return none + (parse_lengths(",".join(others)) if others else ())


def parse_kinds(text: str) -> tuple[str, ...]:
    """Some of ``KINDS``, in their order; empty for all that the data has."""
    return some_of(KINDS, text)


def parse_prompt(text: str) -> str:
    """One of ``PROMPTS``."""
    if text not in PROMPTS:
        raise ValueError(f"one of {', '.join(PROMPTS)}")
    return text


@dataclass(frozen=True)
class BABILongOptions(DocumentOptions):
    """Options of ``BABILong``."""

    lengths: tuple[int, ...] = option(
        "0k", "total lengths in tokens, question and answer included; 0k is the facts alone", parse_text_lengths
    )
    background: str = option(
        "", "texts to hide the facts in: .txt files, rows with a text, a folder; sample is built in", parse_background
    )
    kinds: tuple[str, ...] = option("", f"of {','.join(KINDS)}; empty: all that the data has", parse_kinds)
    prompt: str = option(
        "instructed", "instructed: the official instruction and examples; bare: text and question alone", parse_prompt
    )

    def __post_init__(self) -> None:
        if max(self.lengths) and not self.background:
            raise UserError(
                "task babilong: facts are hidden in a text, and none is given",
                "-o background=FILE, a folder of .txt files or of rows with 'text', or sample; or -o lengths=0k",
            )
        if self.background and not max(self.lengths):
            raise UserError(
                "task babilong: a background is given, and lengths=0k has none", "for example -o lengths=0k,4k,16k"
            )


@dataclass(frozen=True)
class Story:
    """A row: facts, a question about them and its answer."""

    id: str
    kind: str
    facts: str
    question: str
    target: str

    @property
    def sentences(self) -> list[str]:
        """The facts one by one."""
        return re.split(r"(?<=\.)\s+", self.facts)


class BABILong(DocumentTask):
    """Questions about facts that are hidden in a long text."""

    name = "babilong"
    version = 1
    summary = "questions about facts between the sentences of a long text, answered by a word"
    metrics = (MetricSpec("accuracy"),)
    template = "\n".join([TEXT, BARE, *(kind.beginning for kind in KINDS.values())])
    Options = BABILongOptions
    options: BABILongOptions
    schema = DataSchema(
        fields=(
            DataField("input", "text", "the facts, a sentence each, in their order"),
            DataField("question", "text", "the question"),
            DataField("target", "text", "the right answer, one of the labels of its kind"),
            DataField("kind", "text", f"one of {', '.join(KINDS)}; or the name of the file says it"),
        ),
        example={
            "kind": "qa1",
            "input": "Ines went to the garden. Oskar moved to the kitchen. Ines travelled to the hallway.",
            "question": "Where is Ines?",
            "target": "hallway",
        },
        also="rows of RMT-team/babilong's config 0k, in files or folders named after qa1 to qa5",
    )

    @cached_property
    def stories(self) -> list[Story]:
        """The data, read once.

        Raises:
            DataError: a row does not fit.
        """
        rows = [self._story(row) for row in self.dataset.rows]
        ids = unique_ids(story.id for story in rows)
        return [Story(id, s.kind, s.facts, s.question, s.target) for id, s in zip(ids, rows, strict=True)]

    @cached_property
    def background(self) -> Background:
        """The texts between whose sentences the facts stand."""
        return Background(self.options.background)

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        self._story(row)

    def taken_from_names(self) -> list[str]:
        """The kinds."""
        return [story.kind for story in self.stories]

    def provenance(self) -> Mapping[str, Any]:
        """See ``Task.provenance``; the background is a part of the data."""
        return background_sha256(super().provenance(), self.background if self.options.background else None)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all cells.

        Raises:
            UserError: the data cannot be read or has none of the kinds, or a length is too short for a row's facts.
        """
        text = StoryText(self, tokenizer, seed)
        return [text.sample(story, length) for story, length in self._taken(limit)]

    def _taken(self, limit: int | None) -> list[tuple[Story, int]]:
        """Stories and lengths cell by cell, equally many of each kind where there are."""
        of_kind = Counter(story.kind for story in self.stories)
        if missing := [kind for kind in self.options.kinds if kind not in of_kind]:
            raise UserError(
                f"task babilong: no row is of {missing[0]}: the data has {', '.join(sorted(of_kind))}",
                f"-o kinds={','.join(sorted(of_kind))}",
            )
        seen: Counter[str] = Counter()
        places = []
        for story in self.stories:
            if story.kind in (self.options.kinds or KINDS):
                places += [(seen[story.kind], story.kind, length, story) for length in self.options.lengths]
                seen[story.kind] += 1
        taken = sorted(places, key=lambda place: place[:3])[:limit]
        return [(story, length) for _, _, length, story in sorted(taken, key=lambda p: (p[1], p[2], p[0]))]

    def _story(self, row: Row) -> Story:
        kind, facts, question = self._kind(row), row.text("input").strip(), row.text("question").strip()
        target = row.text("target").strip()
        if target.lower() not in map(str.lower, KINDS[kind].labels):
            row.fail("target", f"must be a label of {kind}: {', '.join(KINDS[kind].labels)}")
        return Story(f"{kind}/{text_id(facts + question)}", kind, facts, question, target)

    def _kind(self, row: Row) -> str:
        """From the field ``kind``; else from the name of the file, or of the nearest folder that says it."""
        if row.has("kind"):
            if (kind := row.text("kind")) not in KINDS:
                row.fail("kind", f"must be one of {', '.join(KINDS)}")
            return kind
        for part in reversed(PurePosixPath(self.dataset.provenance.name, row.file).parts):
            found = set(re.findall(r"qa\d+", part.lower()))
            if len(found) == 1 and found <= KINDS.keys():
                return str(found.pop())
            if found:
                raise DataError(
                    f"{row.where}: the name of the file is of {', '.join(sorted(found))}, and famcli knows one of "
                    f"{', '.join(KINDS)}"
                )
        raise DataError(
            f"{row.where}: no field 'kind', and neither file nor folder is named after one of {', '.join(KINDS)}",
            "name the file after its kind, for example qa1.jsonl",
        )


class StoryText:
    """Prompts in one tokenizer's tokens."""

    def __init__(self, task: BABILong, tokenizer: Encoder, seed: int) -> None:
        self.task, self.tokenizer, self.seed = task, tokenizer, seed
        self.budget = generation_budget(tokenizer, ANSWER_CHARACTERS)
        self._sentences: dict[int, Ids] = {}

    def sample(self, story: Story, length: int) -> Sample:
        """One story at one length.

        Raises:
            UserError: it is too short.
        """
        return Sample(
            id=f"{story.id}/{length}",
            cell={"kind": story.kind, "length": length},
            reference=story.target,
            prompt_tokens=length - self.budget if length else None,
            request=partial(self.request, story, length, self.room(story, length) if length else 0),
            score=partial(score, story),
        )

    def around(self, story: Story) -> tuple[str, str]:
        """The prompt before the text and behind it."""
        before, after = PROMPTS[self.task.options.prompt].split("{text}")
        beginning = KINDS[story.kind].beginning if self.task.options.prompt == "instructed" else ""
        return beginning + before, after.format(question=story.question)

    def room(self, story: Story, length: int) -> int:
        """Tokens of background."""
        before, after = self.around(story)
        facts = np.concatenate(self.facts(story))
        least = prompt_tokens((before, facts, after), self.tokenizer) + self.budget
        if least > length:
            raise UserError(
                f"task babilong: length {length} is too short for {story.id}: with this tokenizer its facts, question "
                f"and answer have {least} tokens",
                f"for example -o lengths={least}, -o kinds= without {story.kind}"
                + ("" if self.task.options.prompt == "bare" else ", or -o prompt=bare"),
            )
        return length - least

    def facts(self, story: Story) -> list[Ids]:
        """Token ids of each fact as it goes on behind others."""
        return [going_on(f" {fact}", self.tokenizer) for fact in story.sentences]

    def request(self, story: Story, length: int, room: int) -> Generate:
        before, after = self.around(story)
        text: str | Ids = story.facts
        if length:
            chance = Chance("babilong", self.seed, length, story.id)
            text = np.concatenate(self.mixed(self.facts(story), room, chance))
        return Generate(Prompt((before, text, after), document=1), self.budget)

    def mixed(self, facts: Sequence[Ids], room: int, chance: Chance) -> list[Ids]:
        """Facts in order between sentences that follow one another in the background; places are drawn alike."""
        between = self.sentences(room, chance)
        places = sorted(chance.below(len(between) + 1) for _ in facts)
        parts: list[Ids] = []
        for number in range(len(between) + 1):
            parts += [fact for fact, place in zip(facts, places, strict=True) if place == number]
            parts += between[number : number + 1]
        return parts

    def sentences(self, room: int, chance: Chance) -> list[Ids]:
        """Sentences from a random one on, ``room`` tokens in all: the last is cut."""
        place = chance.below(len(self.task.background.sentences))
        found: list[Ids] = []
        while room > 0:
            ids = self._sentence(place)[:room]
            found.append(ids)
            room -= len(ids)
            place = (place + 1) % len(self.task.background.sentences)
        return found

    def _sentence(self, place: int) -> Ids:
        if place not in self._sentences:
            text = self.task.background.sentences[place]
            self._sentences[place] = going_on(f" {text}", self.tokenizer)
        return self._sentences[place]


def score(story: Story, answer: Generated) -> dict[str, float]:
    """``accuracy`` of the official evaluation, see ``is_right``."""
    return {"accuracy": float(is_right(story.kind, story.question, story.target, answer.text))}
