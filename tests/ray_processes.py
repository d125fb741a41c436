"""Finds the processes of Ray, so that a test or a benchmark can kill them."""

from __future__ import annotations

import subprocess


def workers_of(driver: int) -> list[int]:
    """Processes of the workers that are at work for a driver: of its Ray, which is its child."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in told.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, *_ in rows}

    def descends(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return [int(row[0]) for row in rows if len(row) > 2 and row[2].startswith("ray::Worker") and descends(int(row[0]))]
