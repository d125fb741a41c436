"""What a run ran on, as its record says."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import TypedDict

from famcli.version import __version__


class Workers(TypedDict):
    """Who answered in the last process of a run with workers.

    ``devices`` counts the workers by the model of what they compute on, those that replaced others included; ``lost``
    are those that were lost; ``wall_seconds`` is the time by the clock, where the run's ``seconds`` add up those of all
    workers.
    """

    count: int
    devices: dict[str, int]
    lost: int
    wall_seconds: float


class _WorkersFields(TypedDict, total=False):
    workers: Workers


class Environment(_WorkersFields):
    """What the last process of the run ran on; ``git_commit`` ends in ``-dirty`` where tracked files were changed."""

    python: str
    torch: str
    famcli: str
    git_commit: str | None
    platform: str


def environment() -> Environment:
    """The environment of this process."""
    import torch

    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        famcli=__version__,
        git_commit=_git_commit(),
        platform=platform.platform(),
    )


def _git_commit() -> str | None:
    """The commit of famcli's own source; an installed copy may lie inside somebody else's repository."""
    source = Path(__file__).resolve()
    commands = (
        ["git", "ls-files", "--error-unmatch", source.name],
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    )
    commit = None
    for command in commands:
        try:
            done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        commit = done.stdout.strip()
    return commit
