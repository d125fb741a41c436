"""famcli: does this model remember what it read long ago, and what did that cost?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from famcli.version import __version__ as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from famcli.reports.frames import Frames


def load_runs(*paths: str | Path) -> Frames:
    """Run records as pandas frames ``runs``, ``scores`` and ``samples``, see ``famcli.reports.frames``.

    Args:
        paths: directories of runs, run directories or their ``run.json``; none means ``results``.

    Raises:
        UserError: pandas is not installed, or a path holds no run.
    """
    from famcli.reports import frames

    return frames.load_runs(*paths)
