"""Demonstrations: what the train split asks, with the right answers, before each prompt."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from famcli.errors import UserError
from famcli.task import Choose, Generate, Prompt, Request, option

from .documents import DocumentOptions, DocumentTask, parse_data
from .drawing import Chance
from .sources import SAMPLE, Dataset, open_data
from .splits import TRAIN

BEHIND = "\n\n"
"""Between a demonstration and what follows it."""
MOST_SHOTS = 999


def parse_shots(text: str) -> int:
    """How many demonstrations."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > MOST_SHOTS:
        raise ValueError(f"a whole number from 0 to {MOST_SHOTS}")
    return int(text)


@dataclass(frozen=True)
class ShotOptions(DocumentOptions):
    """Options of a task that can show demonstrations."""

    shots: int = option(
        "0", "demonstrations before each question, drawn by --seed from the train split", parse_shots, added=True
    )
    shots_data: str = option(
        "", "where demonstrations are drawn from, as data; empty: the train split of the data", parse_data, added=True
    )


@dataclass(frozen=True)
class Demonstration:
    """What may be shown.

    Attributes:
        name: of the question.
        document: what it is about; no document is shown twice.
        text: prompt and right answer.
    """

    name: str
    document: str
    text: Callable[[], str]


@dataclass(frozen=True)
class Shown:
    """What is shown before prompts.

    Attributes:
        text: all of it.
        names: of what it is.
    """

    text: str
    names: tuple[str, ...]

    @property
    def details(self) -> dict[str, str]:
        """For the record of a sample."""
        return {"shots": ", ".join(self.names)} if self.names else {}

    def before(self, request: Callable[[], Request]) -> Callable[[], Request]:
        """The request behind the demonstrations."""
        return partial(_behind, self.text, request) if self.names else request


NOTHING_SHOWN = Shown("", ())


def _behind(text: str, request: Callable[[], Request]) -> Request:
    asked = request()
    assert isinstance(asked, Generate | Choose)
    segments, document = asked.prompt.segments, asked.prompt.document
    place = None if document is None else document + 1
    return dataclasses.replace(asked, prompt=Prompt((text, *segments), place, same_start=document == 0))


class ShotTask(DocumentTask):
    """A task that can show demonstrations; what it takes from rows as its samples it takes from the train split too."""

    Options = ShotOptions
    options: ShotOptions

    def __init__(self, options: ShotOptions) -> None:
        super().__init__(options)
        if options.shots_data and not options.shots:
            raise UserError(
                f"task {self.name}: shots_data is given, and no demonstrations are wanted",
                "say how many: -o shots=2, or leave out -o shots_data",
            )

    @cached_property
    def train(self) -> Dataset:
        """What demonstrations are drawn from.

        Raises:
            UserError: there is no train split, or what was given for it cannot be read.
        """
        hub = dataclasses.replace(self.hub, split=TRAIN) if self.hub else None
        wanted = f"task {self.name}: shots={self.options.shots} needs a train split"
        try:
            if self.options.shots_data:
                return open_data(self.name, self.options.shots_data, hub, self.texts)
            found = open_data(self.name, self.options.data or None, hub, self.texts, TRAIN)
        except UserError as error:
            where = f"famcli data fetch {self.name} --split train, or " if hub and not self.options.data else ""
            raise UserError(f"{wanted}: {error.message}", f"{where}-o shots_data=PATH names rows for it") from error
        if not found.has_splits:
            name = found.provenance.name
            built_in = found.provenance.source == SAMPLE
            lacks = (
                "the built-in sample has none" if built_in else f"no name of a file in {name} says that it is of one"
            )
            raise UserError(f"{wanted}, and {lacks}", "-o shots_data=PATH names rows for it")
        return found

    def provenance(self) -> Mapping[str, Any]:
        """See ``Task.provenance``; what demonstrations are drawn from is a part of the data."""
        facts = dict(super().provenance())
        if self.options.shots:
            train = self.train.provenance
            facts["shots_data"] = {"name": train.name, "sha256": train.sha256, "rows": train.rows}
            facts["sha256"] = hashlib.sha256(f"{facts['sha256']} shots {train.sha256}".encode()).hexdigest()
        return facts

    def draw(self, candidates: Sequence[Demonstration], *seed: object) -> Shown:
        """As many as the options ask for, each of another document; fewer are the first of them.

        Args:
            candidates: none of them is of a document that is asked about.
            seed: words that the draw depends on.

        Raises:
            UserError: there are not so many documents.
        """
        wanted, drawn = self.options.shots, dict[str, Demonstration]()
        for one in Chance("shots", *seed).shuffled(candidates):
            if len(drawn) < wanted:
                drawn.setdefault(one.document, one)
        if len(drawn) < wanted:
            raise UserError(
                f"task {self.name}: shots={wanted} needs as many documents that are not asked about, and "
                f"{self.train.provenance.name} has {len(drawn)}",
                f"-o shots={len(drawn)}, or -o shots_data=PATH names other rows",
            )
        text = "".join(f"{one.text()}{BEHIND}" for one in drawn.values())
        return Shown(text, tuple(one.name for one in drawn.values()))
