"""Starts the processes of a team with ``accelerate``, and what launchers tell the processes that they started.

Nothing that takes long is imported here before processes are wanted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from famcli.errors import UserError

NEEDED = "pip install 'famcli[train]'"
GO_ON = "repeat the command with --resume: it goes on from the last checkpoint, if one was written"

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_SPLITS = "famcli train --split-optimizer shares out the optimiser's state"
_WHOLE = "every process holds the whole model, and reads its own rows"
_NOT_USED = {
    "ACCELERATE_USE_FSDP": ("FSDP", _SPLITS),
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", _SPLITS),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", _WHOLE),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("a parallelism config", _WHOLE),
}
_TYPES = {"none": ("no",), "bfloat16": ("no", "bf16")}
"""What ``accelerate`` may be told of mixed precision where a recipe's ``autocast`` is this."""


class Deserted(UserError):
    """The other processes are gone, or the one that started them all, which knows more."""


def launched() -> int:
    """Processes that were started together with this one, as launchers leave it in the environment; 1 for none."""
    return max(1, _number(_SIZES, 1))


def rank_here() -> int:
    """The number of this process among them, from 0."""
    return _number(_RANKS, 0)


def _number(names: Sequence[str], otherwise: int) -> int:
    """The first number among the environment's ``names``."""
    return next((int(value) for name in names if (value := os.environ.get(name, "")).isdecimal()), otherwise)


def check_settings(autocast: str) -> None:
    """Refuses what ``accelerate launch`` was told and this training does not do.

    Args:
        autocast: of the recipe.

    Raises:
        UserError: with the name of the setting.
    """
    given = os.environ
    for name, (what, instead) in _NOT_USED.items():
        if given.get(name, "").lower() in ("true", "1", "yes"):
            raise UserError(
                f"accelerate launch was told to use {what}, which famcli train does not",
                f"leave it out: {instead}",
            )
    if (backend := given.get("ACCELERATE_DYNAMO_BACKEND", "no")).lower() != "no":
        raise UserError(
            f"accelerate launch was told the dynamo backend {backend}, and nothing is compiled here",
            "leave --dynamo_backend out",
        )
    precision = given.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in _TYPES[autocast]:
        raise UserError(
            f"accelerate launch was told mixed_precision {precision}, and the recipe's autocast is {autocast}",
            "the recipe decides: leave --mixed_precision out, or write autocast: bfloat16 there",
        )
    if launched() == 1 and "ACCELERATE_USE_CPU" in given and "MASTER_PORT" in given:
        raise UserError(
            "accelerate launch was asked for several processes and started one: on processors it leaves that to MPI",
            "famcli train --processes N, or accelerate launch --multi_gpu --num_processes N",
        )


def start(words: Sequence[str], processes: int, threads: int, checkpoint: Path) -> int:
    """Runs ``famcli`` with ``words`` in several processes of this machine, and waits until they end.

    Args:
        words: of the command line.
        processes: how many.
        threads: of the processor for each.
        checkpoint: what to go on from is there after a failure, or is not.

    Returns:
        The exit code of one that failed and has said why, or 0.

    Raises:
        UserError: ``accelerate`` is not installed, or a process was killed, and the others with it.
        KeyboardInterrupt: Ctrl-C, after all have ended.
    """
    try:
        from accelerate.commands.launch import launch_command, launch_command_parser
    except ImportError:
        raise UserError("--processes needs the package accelerate", NEEDED) from None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody outside of this machine has to hear them
    # Everything is said: what is not is asked for in the user's own file of settings.
    settings = {"num_machines": 1, "machine_rank": 0, "main_process_ip": "127.0.0.1", "main_process_port": 0}
    settings |= {"num_processes": processes, "num_cpu_threads_per_process": threads, "gpu_ids": "all"}
    settings |= {"mixed_precision": "no", "dynamo_backend": "no"}
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    program = [sys.executable, "-P", "-m", "famcli", *words]  # -P: no module of the folder they are started in
    logging.disable(logging.CRITICAL)  # it speaks to programmers
    try:
        # "multi_gpu" starts several processes of one machine, which find out themselves what they compute on.
        launch_command(launch_command_parser().parse_args(["--multi_gpu", *given, "--no_python", *program]))
    except ChildFailedError as error:
        return _ended({rank: failure.exitcode for rank, failure in error.failures.items()}, processes, checkpoint)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        signal.signal(error.sigval, signal.SIG_DFL)
        os.kill(os.getpid(), error.sigval)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _ended(codes: dict[int, int], processes: int, checkpoint: Path) -> int:
    """The exit code of a process that has said what was wrong; a ``UserError`` for one that could not.

    Who started them ends the others by SIGTERM, whatever happened to the first.
    """
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    rank = next((rank for rank, number in killed.items() if number != signal.SIGTERM), None)
    if rank is None and (said := [code for code in codes.values() if code > 0]):
        return said[0]
    rank = min(killed) if rank is None else rank
    number = killed[rank]
    likely = ", which systems do when memory runs out" if number == signal.SIGKILL else ""
    raise UserError(
        f"process {rank} of {processes} was ended by {signal.Signals(number).name}{likely}; all others were ended then",
        GO_ON if checkpoint.exists() else "repeat the command: no checkpoint was written yet",
    )
