"""Reads one stream to the largest length and says on the way what each length cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from famcli.checkpoints.sources import LoadedModel
from famcli.machine.free import free_bytes
from famcli.machine.peak import PeakMemory
from famcli.models.products import whole_chunks
from famcli.models.stream import State, computed
from famcli.profiling.clock import Clock
from famcli.profiling.job import Job, Message
from famcli.profiling.tokens import Tokens

Say = Callable[[Message], None]

LEAST_POINT = 1024
"""Tokens: the fit has points down to here, or to the shortest length."""
WARM_UP = 2
"""Single tokens that are read before any is timed."""
REACHED_EVERY = 5.0
"""Seconds between two words about how far a stream is."""
COPIES, COPIES_OF_GROWING = 2, 3
"""States in memory at once: the stream's own and the one that ``decode`` goes on with; a state that grows is built
anew beside the old one."""


def points_between(lengths: Sequence[int], size: int) -> list[int]:
    """``lengths`` and half octaves down from the largest, at ends of chunks of ``size`` where they are as long."""
    found, at = set(lengths), float(max(lengths))
    while at >= min(LEAST_POINT, min(lengths)):
        found.add(round(at / size) * size if at >= size else round(at))
        at /= 2**0.5
    return sorted(found)


class Stream:
    """Reads in the chunks that the model reads best, and stops the clock where a length wants something of its own.

    A length costs what it takes until the next token can be predicted: all its tokens but the last are prefilled, the
    last one is read. Larger lengths go on from before its last chunk, as if nothing had been asked.
    """

    def __init__(self, model: LoadedModel, job: Job, repeat: int, say: Say) -> None:
        self.said = {"repeat": repeat}
        self.model, self.job, self.say = model, job, say
        self.stream, self.tokens = model.stream, Tokens(model.stream, job.seed)
        self.size = min(self.stream.chunk_size, max(job.lengths))
        self.grows = grows(model)
        self.along = Clock(model.device)
        self._told = time.monotonic()

    def run(self, lengths: Sequence[int]) -> None:
        """Reads to the last of ``lengths``."""
        points, peak = points_between(lengths, self.size), 0
        with torch.no_grad():
            state: State | None = None
            for earlier, tokens in pairwise((0, *lengths)):
                # Single tokens are read between two lengths: what they take is not the stream's.
                with PeakMemory(self.model.device, tidy=state is None) as counting:
                    state = state or self._begin()
                    for point in points:
                        if earlier < point <= tokens:
                            state = self._prefill(state, whole_chunks(point, self.size)[0])
                            if state is None:
                                return self.say({**self.said, "kind": "stopped", "tokens": tokens})
                            state, asked = self._predict(state, point)
                    peak = max(peak, counting.bytes)
                self._length(tokens, asked, peak)
                del asked

    def _begin(self) -> State:
        """Where the stream starts; what a kernel does when it is called first is done by then."""
        self._warm_up()
        state: State = self.stream.start(1)
        return state

    def _warm_up(self) -> None:
        state = self.stream.prefill(self.tokens.at(0, self.size), self.stream.start(1))
        for place in range(WARM_UP):
            latents, state = self.stream.read(self.tokens.at(place, 1), state)
            self.stream.logits(latents[:, -1])

    def _prefill(self, state: State, until: int) -> State | None:
        """Reads whole chunks; ``None`` where that takes too long."""
        self.along.go()
        try:
            while state.tokens_read < until:
                if self.job.seconds is not None and self._so_far() > self.job.seconds:
                    return None
                # A growing stream goes on from wherever a length ended.
                count = min(self.size - state.tokens_read % self.size, until - state.tokens_read)
                state = self.stream.prefill(self.tokens.at(state.tokens_read, count), state)
                self._tell(state.tokens_read)
        finally:
            self.along.stop()
        return state

    def _so_far(self) -> float:
        return self.along.seconds + self.along.running

    def _predict(self, state: State, tokens: int) -> tuple[State, State]:
        """Reads the last chunk up to ``tokens``: the state to go on from, and the one after them."""
        last = Clock(self.model.device)
        asked = state if self.grows else state.fork()  # a copy of a growing one would take as much as all it measures
        last.go()
        if (most := tokens - 1 - state.tokens_read) > 0:
            asked = self.stream.prefill(self.tokens.at(state.tokens_read, most), asked)
        latents, asked = self.stream.read(self.tokens.at(tokens - 1, 1), asked)
        self.stream.logits(latents[:, -1])
        last.stop()
        if self.grows:
            self.along.add(last)
            last = Clock(self.model.device)
            state = asked
        along = {"along": self.along.seconds, "along_work": self.along.work}
        own = {"own": last.seconds, "own_work": last.work}
        self.say({**self.said, "kind": "point", "tokens": tokens, **along, **own})
        return state, asked

    def _length(self, tokens: int, asked: State, peak: int) -> None:
        found = {
            **self.said,
            "kind": "length",
            "tokens": tokens,
            "computed": computed(self.stream, 0, tokens - 1) + 1,
            "peak": peak,
            "state": asked.nbytes,
        }
        self.say({**found, "decode": self._decode(asked.fork() if self.grows else asked)})

    def _decode(self, state: State) -> list[float]:
        """Seconds of single tokens, each with the logits of the next one."""
        taken = []
        for _ in range(WARM_UP + self.job.decode):
            token, clock = self.tokens.at(state.tokens_read, 1), Clock(self.model.device)
            clock.go()
            latents, state = self.stream.read(token, state)
            self.stream.logits(latents[:, -1])
            taken.append(clock.stop())
        return taken[WARM_UP:]

    def _tell(self, reached: int) -> None:
        if time.monotonic() - self._told >= REACHED_EVERY:
            self._told = time.monotonic()
            self.say({**self.said, "kind": "reached", "tokens": reached})


def grows(model: LoadedModel) -> bool:
    """Whether the state grows with the text."""
    return model.stream.state_bytes(1 << 20) > model.stream.state_bytes(0)


def fitting(model: LoadedModel, lengths: Sequence[int], say: Say) -> list[int]:
    """The lengths whose state fits into free memory, with the copies of it that are made; says which do not."""
    free, copies = free_bytes(model.device), COPIES_OF_GROWING if grows(model) else COPIES
    kept = []
    for tokens in lengths:
        state = model.stream.state_bytes(tokens)
        if free is not None and copies * state > free:
            say({"kind": "refused", "tokens": tokens, "state": state, "needs": copies * state, "free": free})
        else:
            kept.append(tokens)
    return kept
