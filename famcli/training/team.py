"""The processes that train one model together: each reads some of the rows, and holds their memories.

Every process draws what chance decides for all rows, and computes its own rows alone. Two things depend on how many
processes there are: the order in which numbers are added up, and what a dropout leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.training.launch import GO_ON, NEEDED, Deserted, launched

AT_ONCE = 1 << 25
"""Numbers of gradients that are sent together."""

LONGEST_WAIT = timedelta(hours=1)
"""One process may write a large checkpoint while the others wait. One that died is noticed by who started them."""

_PROCESSOR = torch.device("cpu")

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """This process among those that train one model; one alone is a team as well, and sends nothing.

    Rows are dealt in turn, so that each process has rows of every kind: row ``i`` belongs to process ``i % size``.

    Attributes:
        rank: the number of this process, from 0; that one alone writes and speaks.
        size: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _PROCESSOR
    _parent: int = field(default_factory=os.getppid, repr=False)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def deal(self, count: int) -> list[int]:
        """Those of ``count`` rows that belong to this process."""
        return list(range(self.rank, count, self.size))

    def own(self, rows: Iterable[int]) -> list[int]:
        """Those of ``rows`` that belong to this process."""
        return [row for row in rows if row % self.size == self.rank]

    def places(self, rows: Iterable[int]) -> list[int]:
        """Where those of ``rows`` that belong to this process stand in a batch of all that do."""
        return [row // self.size for row in rows if row % self.size == self.rank]

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes of numbers that each of them has, as float64."""
        if self.size == 1:
            return list(values)
        return self._sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def gathered(self, value: T) -> list[T]:
        """What each process has, in their order; tensors must be the processor's."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        with self.together():
            found: list[T] = gather_object([value])
        return found

    def tensors(self, tensor: Tensor) -> list[Tensor]:
        """As ``gathered``, of tensors that may differ in their first dimension."""
        if self.size == 1:
            return [tensor]
        return [other.to(tensor.device) for other in self.gathered(tensor.detach().cpu())]

    def at_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all processes, whose names differ: on the processor of the first, and nowhere else."""
        if self.size == 1:
            return dict(tensors)
        whole: dict[str, Tensor] = {}
        for rank, some in enumerate(self.gathered({name: (t.shape, t.dtype) for name, t in tensors.items()})):
            for name, (shape, dtype) in some.items():
                if self.first:
                    whole[name] = tensors[name].cpu() if rank == 0 else self._received(shape, dtype, rank).cpu()
                elif self.rank == rank:
                    with self.together():
                        torch.distributed.send(tensors[name].to(self.device).contiguous(), 0)
        return whole

    def agree(self, what: Mapping[str, str]) -> None:
        """Sees to it that all processes say the same.

        Raises:
            UserError: they do not; it names what they differ in.
        """
        said = self.gathered(dict(what))
        for name in what:
            if len({one[name] for one in said}) > 1:
                raise UserError(
                    f"the processes that train together do not have the same {name}",
                    "start them all with the same command, on the same files",
                )

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Makes every gradient the sum of those of all processes; what has none anywhere is left without."""
        if self.size == 1:
            return
        found = self.sums([float(weight.grad is not None) for weight in weights])
        gradients = []
        for weight, count in zip(weights, found, strict=True):
            if count:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(weight.grad)
        for some in _parcels(gradients):
            summed = self._sum(torch.cat([gradient.flatten() for gradient in some]))
            for gradient, part in zip(some, summed.split([g.numel() for g in some]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def _received(self, shape: torch.Size, dtype: torch.dtype, rank: int) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device=self.device)
        with self.together():
            torch.distributed.recv(tensor, rank)
        return tensor

    def _sum(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        with self.together():
            summed: Tensor = reduce(tensor, "sum")
        return summed

    @contextmanager
    def together(self) -> Iterator[None]:
        """Sees to it that a process does not outlive the others, nor whoever started it."""
        if os.getppid() != self._parent:
            raise Deserted("the process that started this training is gone", GO_ON)
        try:
            yield
        except RuntimeError as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise Deserted(f"the other processes of this training do not answer: {reason}", GO_ON) from error


ALONE = Team()


def join(device: str, expected: int | None = None) -> Team:
    """The team that this process was launched into, by itself where that is none.

    Args:
        device: ``cuda``, ``cpu``, or ``auto`` for CUDA where it is there.
        expected: how many processes the user says there are.

    Raises:
        UserError: ``accelerate`` is not installed, there are fewer GPUs than processes, or not as many processes as
            ``expected``.
    """
    if (size := launched()) == 1:
        return ALONE
    if expected not in (None, size):
        raise UserError(f"--processes is {expected}, and {size} processes were launched", "leave --processes out")
    try:
        from accelerate import PartialState
    except ImportError:
        raise UserError("training in several processes needs the package accelerate", NEEDED) from None
    on_processor = device == "cpu" or not torch.cuda.is_available()
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if device == "cuda" and on_processor:
        raise UserError("device 'cuda' is not available here", "use --device auto")
    if not on_processor and here > gpus:
        raise UserError(
            f"{here} processes want a GPU each, and this machine has {gpus}",
            "as many processes as GPUs, or --device cpu",
        )
    try:
        state = PartialState(cpu=on_processor, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(
            f"the environment says that {size} processes were launched, and they do not meet: {reason}",
            "start them with famcli train --processes N, or unset WORLD_SIZE to train in one",
        ) from error
    if state.num_processes != size:
        raise UserError(
            f"{size} processes were started, and accelerate finds {state.num_processes}",
            "start them with famcli train --processes N, accelerate launch or torchrun",
        )
    return Team(state.process_index, state.num_processes, state.device)


def leave() -> None:
    """Takes leave of the team, once nothing is to be sent any more."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _parcels(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type that are sent together."""
    parcel: list[Tensor] = []
    for tensor in tensors:
        size = sum(t.numel() for t in parcel)
        if parcel and (parcel[0].dtype != tensor.dtype or size + tensor.numel() > AT_ONCE):
            yield parcel
            parcel = []
        parcel.append(tensor)
    if parcel:
        yield parcel
