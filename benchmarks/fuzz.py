"""Runs famcli on thousands of spoilt inputs and counts what must not be: tracebacks, hangs, files changed elsewhere.

    python benchmarks/fuzz.py --cases 4000
    python benchmarks/fuzz.py --only 17 --keep /tmp/case       # case 17 alone; its files stay

Every case is one command line over one of the verbs, in a folder of its own, drawn from the seed and its number alone.
Python and PyTorch are imported once: each case is a fork of the process that has them, so a core does some hundreds of
cases in a minute. What counts, besides what is printed:

- a traceback: an exception that no one caught, a death by signal, an exit code other than 0, 1, 2 and 130;
- a hang: a case that takes longer than 10 seconds;
- memory: more than 2 GiB beyond what the process began with is refused, and a case that asks for it is counted;
- a file that was made, changed or removed outside the folder that the command runs in.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_commands import make_case
from fuzz_inputs import make_kit

SECONDS = 10.0
MEMORY = 2 << 30
CODES = (0, 1, 2, 130)
TRACEBACK = "Traceback (most recent call last)"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
)


@dataclass(frozen=True)
class Result:
    """How a case ended: ``faults`` by kind, with what was seen of each."""

    args: list[str]
    code: int
    printed: str
    faults: dict[str, str]


def warm() -> None:
    """Imports all that the verbs import when they are called."""
    import importlib

    for name in ("check", "compare", "data", "eval", "list", "report", "running", "sweep", "train"):
        importlib.import_module(f"famcli.cli.{name}")
    for name in (
        *(
            "datasets",
            "gguf",
            "jinja2.sandbox",
            "pyarrow.parquet",
            "rouge_score.rouge_scorer",
            "sacrebleu",
            "tokenizers",
        ),
        *("torch", "yaml", "rich.table", "rich.progress"),
        *("famcli.checkpoints.gguf", "famcli.checkpoints.adapters", "famcli.evaluation.runner", "famcli.training.loop"),
        *("famcli.training.lora", "famcli.training.cloze", "famcli.reports.formats", "famcli.reports.html.page"),
        *("famcli.gate.check", "famcli.gate.update", "famcli.compare.side_by_side"),
    ):
        importlib.import_module(name)
    import gc

    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what no fork touches need not be copied


def run_case(number: int, seed: int, kit: Path, folder: Path) -> Result:
    """Makes a case below ``folder`` and runs it in a fork."""
    args = make_case(random.Random(f"{seed} {number}"), kit, folder)
    before = _snapshot(folder)
    out = folder / "printed"
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        _child(args, folder, out)
    status = _wait(pid, began + SECONDS)
    printed = out.read_bytes().decode("utf-8", "replace") if out.exists() else ""
    told = (folder / "told").read_text() if (folder / "told").exists() else ""
    faults = {}
    code = os.waitstatus_to_exitcode(status) if status is not None else -1
    if status is None:
        faults["hang"] = f"{time.monotonic() - began:.1f} s"
    elif code not in CODES or TRACEBACK in printed:
        faults["traceback"] = printed.strip()[-3000:] or f"exit code {code}"
    if "not enough memory" in printed:
        faults["memory"] = "it asks for more memory than there is"
    changed = [line for line in told.splitlines() if line] + _changes(before, _snapshot(folder))
    if changed:
        faults["changed"] = "; ".join(changed[:5])
    return Result(args, code, printed, faults)


def _child(args: list[str], folder: Path, out: Path) -> None:
    """The command in this process, which ends with it."""
    code = 70
    try:
        target = os.open(out, os.O_WRONLY | os.O_CREAT)
        os.dup2(target, 1), os.dup2(target, 2)
        sys.stdin = open(os.devnull)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.setpgid(0, 0)
        os.chdir(folder / "run")
        home, scratch = folder / "home", folder / "scratch"
        home.mkdir(), scratch.mkdir()
        os.environ |= {"HOME": str(home), "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        tempfile.tempdir = str(scratch)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        told: list[str] = []
        sys.addaudithook(lambda event, given: _hear(event, given, told, (folder / "run", scratch)))
        from famcli.cli.main import main

        code = main(args)
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
        code = 70
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(Exception):
            if told:
                descriptor = os.open(folder / "told", os.O_WRONLY | os.O_CREAT)
                os.write(descriptor, "\n".join(told).encode("utf-8", "replace"))
        os._exit(code)


def _hear(event: str, given: tuple[Any, ...], told: list[str], allowed: tuple[Path, ...]) -> None:
    """Notes what is changed outside the folders that may be."""
    if event == "open":
        path, mode, flags = given
        writes = (isinstance(mode, str) and any(letter in mode for letter in "wxa+")) or (flags or 0) & _WRITES
        if not writes:
            return
    elif event in _CHANGES:
        path = given[0]
    else:
        return
    if isinstance(path, int) or path is None:
        return
    place = os.path.abspath(os.fsdecode(path))
    fine = place in ("/dev/null", "/dev/tty", "/dev/shm") or place.startswith(("/dev/shm/", "/proc/"))
    if not fine and not any(place == str(one) or place.startswith(f"{one}/") for one in allowed) and len(told) < 20:
        told.append(f"{event} {place}")


def _data_bytes() -> int:
    """What the process holds now of what ``RLIMIT_DATA`` bounds."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData")))
    return 8 << 30


def _wait(pid: int, until: float) -> int | None:
    """The status of a child that ended in time; ``None`` of one that had to be killed."""
    pause = 0.001
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """What is in a case's folder, but for where its command may write."""
    found = {}
    for place, folders, files in os.walk(folder):
        if place == str(folder):
            folders[:] = [name for name in folders if name not in ("run", "scratch")]
            files = [name for name in files if name not in ("printed", "told")]
        for name in (*folders, *files):
            about = os.lstat(os.path.join(place, name))
            size = 0 if name in folders else about.st_size
            found[os.path.relpath(os.path.join(place, name), folder)] = (
                about.st_mode,
                size,
                about.st_mtime_ns * (not size == 0),
            )
    found.pop("home", None)
    return found


def _changes(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> list[str]:
    return [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]


@contextlib.contextmanager
def workplace(keep: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """A folder with the kit, and one for cases."""
    with tempfile.TemporaryDirectory(prefix="famcli-fuzz-") as name:
        kit = Path(name, "kit")
        kit.mkdir()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            make_kit(kit)
        cases = keep or Path(name, "cases")
        cases.mkdir(parents=True, exist_ok=True)
        yield kit, cases


def fuzz(numbers: range, seed: int, keep: Path | None = None) -> Iterator[tuple[int, Result]]:
    """The results of cases one by one; the folders of those without fault are removed."""
    warm()
    with workplace(keep) as (kit, cases):
        for number in numbers:
            folder = cases / str(number)
            shutil.rmtree(folder, ignore_errors=True)
            result = run_case(number, seed, kit, folder)
            yield number, result
            if not keep or (not result.faults and len(numbers) > 1):
                shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="this case alone, with what it prints")
    parser.add_argument("--keep", type=Path, help="folder in which the files of cases with faults stay")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.cases) if given.only is None else range(given.only, given.only + 1)
    faults, codes, began = Counter[str](), Counter[int](), time.monotonic()
    for number, result in fuzz(numbers, given.seed, given.keep):
        faults.update(result.faults.keys())
        codes[result.code] += 1
        if given.only is not None:
            print(result.args, result.printed, sep="\n")
        for kind, what in result.faults.items():
            print(f"case {number}: {kind}: famcli {' '.join(map(repr, result.args))}\n{what}\n", flush=True)
    seconds = time.monotonic() - began
    kinds = ", ".join(f"{kind} {faults[kind]}" for kind in ("traceback", "hang", "memory", "changed"))
    print(f"{len(numbers)} cases in {seconds:.0f} s, exit codes {dict(sorted(codes.items()))}: {kinds}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
