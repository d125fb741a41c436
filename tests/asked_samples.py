"""A task of given samples, and questions about made-up stories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from famcli.task import Choose, Generate, MetricSpec, Prompt, Request, Sample, Task


@dataclass(frozen=True)
class NoOptions:
    pass


class Asks(Task):
    """A task made of given samples."""

    name = "asks"
    version = 1
    summary = "given samples"
    metrics = (MetricSpec("length"),)
    Options = NoOptions

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(NoOptions())
        self.given = list(samples)

    def samples(self, tokenizer: Any, seed: int, limit: int | None) -> list[Sample]:
        return self.given[:limit]


def story(number: int, length: int) -> str:
    rng = np.random.default_rng(number)
    return "".join(rng.choice(list("abcdefg hij.\n"), length))


def asked(name: str, document: str, question: str, options: tuple[str, ...], alone: bool = False) -> Sample:
    prompt = Prompt((document, question), document=0)
    request: Request = Choose(prompt, options) if options else Generate(prompt, 5)
    return Sample(
        name, {}, "", lambda: request, lambda answer: {"length": 1.0}, document=None if alone else document[:12]
    )


def answers(path: Path) -> dict[str, dict[str, Any]]:
    lines = (path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}
