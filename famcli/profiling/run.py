"""Model after model, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from famcli.profiling.gathering import Gathering
from famcli.profiling.job import Job, Message
from famcli.profiling.launch import ask
from famcli.profiling.record import Profile, TrainingCost
from famcli.version import __version__

Hear = Callable[[str, Message], None]
"""Called with a model's name and what its process said."""


class Profiling:
    """What one command measures.

    Args:
        jobs: a model each.
        training_blocks: also measure training, over each of these numbers of blocks.
        hear: is told of every message.
    """

    def __init__(self, jobs: Sequence[Job], training_blocks: Sequence[int], hear: Hear) -> None:
        self.training_blocks, self.hear = training_blocks, hear
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._models = [Gathering(job) for job in jobs]

    def run(self) -> None:
        """Measures all. It may be interrupted: ``result`` has what was found by then, and no process is left."""
        for model in self._models:
            for message in ask(model.job):
                model.hear(message)
                self.hear(model.job.model, message)
            for blocks in self.training_blocks:
                model.training.append(self._train(model.job, blocks))

    def _train(self, job: Job, blocks: int) -> TrainingCost:
        peak, why = None, None
        for message in ask(replace(job, training_blocks=blocks)):
            if message["kind"] == "peak":
                peak = int(message["bytes"])
            elif message["kind"] == "failed":
                why = message["why"]
            self.hear(job.model, {**message, "blocks": blocks})
        return TrainingCost(blocks, peak, why)

    def result(self, text: str) -> Profile:
        """What was found so far; ``text`` says in words what was read."""
        models = [model.profile() for model in self._models]
        return Profile(__version__, self.started, text, self._models[0].job.repeat, models)
