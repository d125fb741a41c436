"""A worker: it has the model, answers what it is sent, and keeps no books."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from famcli.errors import UserError
from famcli.evaluation.answering import Answering
from famcli.evaluation.asking import SampleError, Skips
from famcli.evaluation.journal import Entry
from famcli.evaluation.plan import Group
from famcli.evaluation.stream import STATES, StateKeeper
from famcli.evaluation.workers.job import About, Failure, Job
from famcli.machine.peak import PeakMemory, held_beside, program


class Worker:
    """An actor. ``open`` comes first.

    Args:
        job: what all its answers have in common.
        threads: of the processor.
        folder: where the driver runs; names of files in ``job`` are relative to it.
    """

    def __init__(self, job: Job, threads: int, folder: str) -> None:
        self.job, self.folder = job, folder
        self._read = 0
        torch.set_num_threads(threads)

    def open(self) -> About | Failure:
        """Loads the model."""
        try:
            return self._open()
        except UserError as error:
            return Failure(error.message, error.hint)

    def _open(self) -> About:
        from famcli.checkpoints.registry import find_model

        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        if self.job.prepare:
            self.job.prepare()
        program()
        source = find_model(self.job.spec)
        beside = held_beside()
        device = torch.device(self.job.device)
        self.model = source.load(device, getattr(torch, self.job.dtype), self.job.device_map)
        self.peak = PeakMemory(self.model.device, beside)
        self.peak.__enter__()  # until the process ends
        return About(self.model.weights_sha256, device_model(self.model.device))

    def read_so_far(self) -> int:
        """Tokens read of the unit at hand; asked while ``answer`` runs."""
        return self._read

    def answer(self, group: Group, name: str) -> Iterator[list[Entry] | Failure]:
        """The entries of a unit, batch by batch; ``name`` is the unit's."""
        self._read = 0
        kept = self.job.directory / STATES
        keeper = StateKeeper(kept if kept.is_dir() else None, f"{name}.safetensors")
        skips = Skips("skip")
        answering = Answering(
            model=self.model,
            task=self.job.task,
            context=self.job.context,
            special=self.job.special,
            thinking=self.job.thinking,
            drawing=self.job.drawing,
            keeper=keeper,
            skips=skips,
            advance=self._advance,
            peak=self.peak,
        )
        told = 0
        try:
            for entries in answering.answer(group):
                yield entries
                yield from _failures(skips, told)
                told = len(skips.reasons)
            yield from _failures(skips, told)
        except SampleError as error:
            yield Failure(error.message, error.hint, error.sample)
        except UserError as error:
            yield Failure(error.message, error.hint)
        keeper.forget()

    def _advance(self, tokens: int) -> None:
        self._read += tokens


def _failures(skips: Skips, told: int) -> list[Failure]:
    """Of samples that were skipped since ``told`` of them were said."""
    return [Failure(why, None, id) for id, why in list(skips.reasons.items())[told:]]


def device_model(device: torch.device) -> str:
    """What computes, by its name: workers of two kinds may round differently."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
