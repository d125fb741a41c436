"""The driver of a run with workers: hands out units, takes answers, and replaces workers that are lost."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch

from famcli.display import visible
from famcli.errors import UserError
from famcli.evaluation.asking import SampleError, Skips
from famcli.evaluation.environment import Workers
from famcli.evaluation.journal import Entry
from famcli.evaluation.plan import Group
from famcli.evaluation.progress import Progress
from famcli.evaluation.record import RunRecord
from famcli.evaluation.stream import STATES
from famcli.evaluation.workers.job import About, Asked, Failure, Job, Unit, units
from famcli.evaluation.workers.worker import Worker
from famcli.files import SOURCE_SHA256
from famcli.task import Task

logger = logging.getLogger(__name__)

GIVEN_UP_AFTER = 3
"""Workers that one unit may cost."""
_LOOK = 1.0
"""Seconds between two looks at how far the workers are."""


@dataclass
class _Hand:
    """A worker, and the answer that is awaited to how much of its unit it has read."""

    actor: Any
    asked: Any = None


@dataclass
class _Flight:
    """A unit at a worker."""

    unit: Unit
    hand: _Hand


@dataclass
class Crew:
    """Workers for all runs of one command.

    Args:
        workers: how many.
        address: of a Ray cluster; ``None`` starts one on this machine for as long as this lasts.
        threads: of the processor for each; ``None`` shares those of this machine evenly, and is 1 on a cluster.
        gpus: for each; may be a fraction.
        mixed: workers may compute on devices of different models.
        device_map: spread the layers of the model over the devices of a worker.
        prepare: what a worker calls before it looks for the model, for plugins that the user named.

    Attributes:
        devices: how many workers of the run at hand compute on what.
        lost: workers lost in it.
    """

    workers: int
    address: str | None = None
    threads: int | None = None
    gpus: float = 0
    mixed: bool = False
    device_map: bool = False
    prepare: Callable[[], Any] | None = None
    devices: Counter[str] = field(default_factory=Counter, init=False)
    lost: int = field(default=0, init=False)

    def __enter__(self) -> Crew:
        if self.address is None:
            # Whoever can talk to a cluster can run code there, and this machine may have other users.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.ray = _ray()
        where: dict[str, Any] = {"address": self.address}
        if self.address is None:
            where = {"num_cpus": self.workers * self._threads, "_node_ip_address": "127.0.0.1"}
            where |= {"include_dashboard": False}
        try:
            self.ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # where a machine is too slow, Ray raises no class of its own
            if self.address is None:
                raise UserError(
                    f"Ray does not start on this machine: {_first_line(error)}",
                    "type the command again when the machine is less busy, or leave --workers out",
                ) from error
            raise UserError(
                f"no Ray cluster answers at {self.address}: {error}",
                "ray status --address ADDRESS asks for it; RAY_AUTH_MODE and RAY_AUTH_TOKEN must be those it has",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray.shutdown()

    @property
    def _threads(self) -> int:
        if self.threads:
            return self.threads
        return 1 if self.address else max(1, torch.get_num_threads() // self.workers)

    def answers(
        self, record: RunRecord, asked: Asked, groups: Sequence[Group], skips: Skips, progress: Progress | None
    ) -> Generator[list[Entry]]:
        """The answers to all samples of ``groups``, as they come.

        Args:
            record: of the run; its environment gets what workers answered it.
            asked: what all answers have in common.
            groups: the samples.
            skips: what is done with samples that the task fails on, and with those of units that are given up.
            progress: told of tokens read.

        Raises:
            UserError: a worker cannot load the model, has other weights or computes on another device than the others;
                or the task fails, or a unit cost three workers, and ``skips`` stops there.
        """
        self.devices, self.lost = Counter(), 0
        begun = time.monotonic()
        (record.path / STATES).mkdir(exist_ok=True)
        run = _Run(self, self._job(asked, record.path), deque(units(groups)), skips, progress)
        try:
            with _by_value(asked.task):
                yield from run.entries()
        finally:
            run.dismiss()
        record.environment["workers"] = Workers(
            count=self.workers,
            devices=dict(self.devices),
            lost=self.lost,
            wall_seconds=round(time.monotonic() - begun, 3),
        )

    def _job(self, asked: Asked, directory: Path) -> Job:
        model = asked.model
        return Job(
            spec=model.spec,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            device_map=self.device_map,
            weights_sha256=model.weights_sha256,
            task=asked.task,
            context=asked.context,
            special=asked.special,
            thinking=asked.thinking,
            drawing=asked.drawing,
            directory=directory.absolute(),
            prepare=self.prepare,
        )

    def hire(self, job: Job) -> _Hand:
        """A new worker, which has begun to load the model."""
        needs = {"num_cpus": self._threads, "num_gpus": self.gpus, "max_restarts": 0, "max_task_retries": 0}
        kind = self.ray.remote(Worker).options(**needs, max_concurrency=2)
        return _Hand(kind.remote(job, self._threads, os.getcwd()))


class _Run:
    """One run's units, at the workers and waiting."""

    def __init__(self, crew: Crew, job: Job, waiting: deque[Unit], skips: Skips, progress: Progress | None) -> None:
        self.crew, self.ray, self.job, self.waiting = crew, crew.ray, job, waiting
        self.skips, self.progress = skips, progress
        self.hands: list[_Hand] = []
        self.idle: list[_Hand] = []
        self.never_opened = 0
        self.flying: dict[Any, _Flight] = {}
        self.opening: dict[Any, _Hand] = {}
        self.done: set[str] = set()
        self.costs: Counter[str] = Counter()
        self.shown: Counter[str] = Counter()
        self.looked = time.monotonic()

    def entries(self) -> Iterator[list[Entry]]:
        """See ``Crew.answer``."""
        for _ in range(min(self.crew.workers, len(self.waiting))):
            self._hire()
        while self.waiting or self.flying:
            pending = [*self.opening, *self.flying]
            ready, _ = self.ray.wait(pending, num_returns=1, timeout=_LOOK)
            for stream in ready:
                if stream in self.opening:
                    self._opened(stream)
                else:
                    yield from self._take(stream)
            self._look()

    def dismiss(self) -> None:
        """Lets all workers go."""
        for hand in self.hands:
            with suppress(Exception):
                self.ray.kill(hand.actor)

    def _hire(self) -> None:
        hand = self.crew.hire(self.job)
        self.hands.append(hand)
        self.opening[hand.actor.open.remote()] = hand

    def _opened(self, promise: Any) -> None:
        hand = self.opening.pop(promise)
        try:
            about = self.ray.get(promise)
        except self.ray.exceptions.RayActorError as error:
            self._lost(hand)
            self.never_opened += 1
            if self.never_opened >= GIVEN_UP_AFTER:
                raise UserError(
                    f"{GIVEN_UP_AFTER} workers one after another were lost while they loaded the model: "
                    f"{_last_line(error)}",
                    "where it says nothing more, memory may be short: fewer --workers",
                ) from error
            self._hire()
            return
        except self.ray.exceptions.RayTaskError as error:
            raise _failed("a worker failed while it loaded the model", error) from error
        if isinstance(about, Failure):
            raise UserError(f"a worker cannot load the model: {about.message}", about.hint)
        self._check(about)
        self.never_opened = 0
        self._send(hand)

    def _check(self, about: About) -> None:
        if about.weights_sha256 != self.job.weights_sha256:
            raise UserError(
                f"a worker found other weights for {self.job.spec}: {about.weights_sha256[:12]}, here "
                f"{self.job.weights_sha256[:12]}",
                "put the same file on every machine",
            )
        self.crew.devices[about.device] += 1
        if len(self.crew.devices) > 1 and not self.crew.mixed:
            raise UserError(
                f"the workers compute on different devices ({', '.join(sorted(self.crew.devices))}), which may round "
                "differently",
                "--mixed-devices allows it",
            )

    def _send(self, hand: _Hand) -> None:
        """The next unit to a worker that has none."""
        if not self.waiting:
            self.idle.append(hand)
            return
        unit, hand.asked = self.waiting.popleft(), None
        try:
            stream = hand.actor.answer.options(num_returns="streaming").remote(unit.group, unit.name)
        except (TypeError, AttributeError) as error:  # of pickle
            raise UserError(
                f"{unit.what} of task {self.job.task.name} cannot be sent to a worker: {_first_line(error)}"
            ) from error
        self.flying[stream] = _Flight(unit, hand)

    def _take(self, stream: Any) -> Iterator[list[Entry]]:
        """What a worker has to say next."""
        flight = self.flying[stream]
        try:
            said = self.ray.get(next(stream))
        except StopIteration:
            del self.flying[stream]
            self._show(flight, flight.unit.group.tokens)
            self._send(flight.hand)
            return
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError) as error:
            del self.flying[stream]
            self._lose(flight, error)
            return
        except self.ray.exceptions.RayTaskError as error:
            raise _failed(f"a worker failed at {flight.unit.what}", error) from error
        if isinstance(said, Failure):
            if said.sample is None:
                raise UserError(said.message, said.hint)
            self.skips.add(SampleError(said.message, said.sample))
        elif said:
            self.done.update(entry.id for entry in said)
            yield said

    def _lose(self, flight: _Flight, error: Exception) -> None:
        """Replaces a worker that is gone, and has somebody else answer what it has not."""
        self._lost(flight.hand)
        unit = flight.unit
        self.costs[unit.name] += 1
        rest = unit.rest(self.done | self.skips.reasons.keys())
        logger.warning(
            "warning: a worker was lost (%d so far) at %s: %s", self.crew.lost, unit.what, _first_line(error)
        )
        if rest and self.costs[unit.name] >= GIVEN_UP_AFTER:
            for p in rest.samples:
                why = f"{unit.what} cost {GIVEN_UP_AFTER} workers and is given up"
                self.skips.add(SampleError(why, p.sample.id))
        elif rest:
            self.waiting.appendleft(rest)
        if self.waiting and self.idle:
            self._send(self.idle.pop())
        elif self.waiting:
            self._hire()

    def _lost(self, hand: _Hand) -> None:
        self.crew.lost += 1
        self.hands.remove(hand)
        with suppress(Exception):
            self.ray.kill(hand.actor)

    def _look(self) -> None:
        """Shows how far the workers are, at most once a second."""
        if time.monotonic() - self.looked < _LOOK:
            return
        self.looked = time.monotonic()
        for flight in self.flying.values():
            hand = flight.hand
            if hand.asked is not None:
                done, _ = self.ray.wait([hand.asked], timeout=0)
                if not done:
                    continue
                with suppress(self.ray.exceptions.RayError):
                    self._show(flight, min(self.ray.get(hand.asked), flight.unit.group.tokens))
            hand.asked = hand.actor.read_so_far.remote()

    def _show(self, flight: _Flight, read: int) -> None:
        """What was read twice, because a worker was lost, is shown once."""
        name = flight.unit.name
        if self.progress and read > self.shown[name]:
            self.progress.advance(read - self.shown[name])
            self.shown[name] = read


@contextmanager
def _by_value(task: Task) -> Iterator[None]:
    """A task that was read from a file goes to the workers as it is, with the files beside it that it imports.

    They could not import any of them.
    """
    digest = _source_of(sys.modules.get(type(task).__module__))
    if digest is None:
        yield
        return
    from ray import cloudpickle

    register, unregister = cloudpickle.register_pickle_by_value, cloudpickle.unregister_pickle_by_value
    modules = [module for module in list(sys.modules.values()) if _source_of(module) == digest]
    for module in modules:
        register(module)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for module in modules:
            unregister(module)  # type: ignore[no-untyped-call]


def _source_of(module: ModuleType | None) -> str | None:
    """The hash of what was executed, where a module was read from a file that the user named."""
    found: str | None = getattr(module, "__dict__", {}).get(SOURCE_SHA256)
    return found


def _failed(what: str, error: Any) -> UserError:
    """What a worker raised that is no error for people; its own message, not Ray's traceback."""
    cause = getattr(error, "cause", None) or error
    return UserError(f"{what}: {type(cause).__name__}: {_first_line(cause)}", "without --workers all of it is shown")


def _last_line(error: Exception) -> str:
    """What was raised in a worker stands at the end of what Ray says."""
    return visible(re.sub(r"\x1b\[[0-9;]*m", "", (str(error).strip() or type(error).__name__).splitlines()[-1].strip()))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _ray() -> ModuleType:
    """Ray, which says nothing to its makers.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers without a GPU see what there is
    try:
        import ray
    except ImportError:
        raise UserError("workers need Ray, which is not installed", "pip install 'famcli[ray]'") from None
    module: ModuleType = ray
    return module
