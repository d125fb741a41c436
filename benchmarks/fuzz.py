"""Runs famcli on thousands of spoilt inputs and counts what must not be: tracebacks, hangs, files changed elsewhere.

    python benchmarks/fuzz.py --cases 4000
    python benchmarks/fuzz.py --only 17 --keep /tmp/case       # case 17 alone; its files stay

Every case is one command line over one of the verbs, in a folder of its own, drawn from the seed and its number alone.
Python and PyTorch are imported once: a fork of the process that has them runs some cases, so a core does about a
thousand in a minute. What counts, besides what is printed:

- a traceback: an exception that no one caught, a death by signal, an exit code other than 0, 1, 2 and 130;
- a hang: a case that takes longer than 10 seconds, or than a minute on a machine that is busy, twice;
- memory: more than 2 GiB beyond what the process began with is refused, and a case that asks for it is counted;
- a file that was made, changed or removed outside the folder that the command runs in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_commands import make_case
from fuzz_inputs import make_kit

SECONDS, BUSY = 10.0, 6
"""A case may take, and how many times as long on a machine that has more to do than processors."""
TOGETHER = 25
"""Cases that one fork runs."""
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

    for name in ("check", "compare", "data", "eval", "list", "profile", "report", "running", "show", "sweep", "train"):
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
    with contextlib.suppress(ImportError):
        importlib.import_module("peft")
    import gc

    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what no fork touches need not be copied


def run_cases(numbers: Sequence[int], seed: int, kit: Path, cases: Path) -> Iterator[tuple[int, Result]]:
    """Makes the cases below ``cases`` and runs them one after another in a fork; another one goes on after a hang."""
    left = list(numbers)
    while left:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(left, seed, kit, cases, writing)
        os.close(writing)
        lines = Lines(reading)
        try:
            for number in tuple(left):
                args = lines.next(10 * _seconds())  # the case is being made
                told = lines.next(_seconds()) if args is not None else None
                left.remove(number)
                if told:
                    yield number, Result(args, told["code"], told["printed"], told["faults"])
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                fault = {"hang": f"more than {_seconds():.0f} s"}
                if told == {}:
                    fault = {"traceback": f"the process ended with {os.waitstatus_to_exitcode(status)}"}
                yield number, Result(args or [], -1, "", fault)
                break
            else:
                os.waitpid(pid, 0)
        finally:
            os.close(reading)


def _seconds() -> float:
    return SECONDS * (BUSY if os.getloadavg()[0] > (os.cpu_count() or 1) else 1)


class Lines:
    """Lines of JSON out of a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe, self.content = pipe, b""

    def next(self, seconds: float) -> Any:
        """The next one; ``None`` where none comes in time, ``{}`` where the other end is gone."""
        until = time.monotonic() + seconds
        while b"\n" not in self.content:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            part = os.read(self.pipe, 1 << 20)
            if not part:
                return {}
            self.content += part
        line, _, self.content = self.content.partition(b"\n")
        return json.loads(line)


def _child(numbers: Sequence[int], seed: int, kit: Path, cases: Path, pipe: int) -> None:
    """Runs cases in this process, which ends with them; tells of each what it is, and how it ended."""
    try:
        sys.stdin = open(os.devnull)  # noqa: SIM115 (as long as the process)
        heard = Heard()
        sys.addaudithook(heard.hear)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY, hard))
        for number in numbers:
            folder = cases / str(number)
            args = make_case(random.Random(f"{seed} {number}"), kit, folder)
            _send(pipe, args)
            _send(pipe, _run(args, folder, heard))
        os._exit(0)
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc(file=sys.__stderr__)
        os._exit(70)


def _send(pipe: int, value: Any) -> None:
    content = json.dumps(value).encode() + b"\n"
    while content:
        content = content[os.write(pipe, content) :]


def _run(args: list[str], folder: Path, heard: Heard) -> dict[str, Any]:
    """One command, and what must not be of it."""
    from famcli.cli.main import main

    home, scratch = folder / "home", folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    before = _snapshot(folder)
    os.chdir(folder / "run")
    os.environ |= {"HOME": str(home), "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    tempfile.tempdir = str(scratch)
    out, code = folder / "printed", 70
    with open(out, "w", encoding="utf-8", errors="backslashreplace") as printed:
        sys.stdout = sys.stderr = printed
        heard.begin((folder / "run", scratch, out))
        try:
            code = main(args)
        except BaseException:
            traceback.print_exc()
        finally:
            changed = heard.end()
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    text = out.read_text(encoding="utf-8", errors="replace")
    faults = {}
    if code not in CODES or TRACEBACK in text:
        faults["traceback"] = text.strip()[-3000:] or f"exit code {code}"
    if "not enough memory" in text:
        faults["memory"] = "it asks for more memory than there is"
    if changed := changed + _changes(before, _snapshot(folder)):
        faults["changed"] = "; ".join(changed[:5])
    return {"code": code, "printed": text[-20_000:], "faults": faults}


class Heard:
    """What Python says that it changes, outside the places where a case may."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.told: list[str] = []

    def begin(self, allowed: Sequence[Path]) -> None:
        self.told, self.allowed = [], tuple(map(str, allowed))

    def end(self) -> list[str]:
        self.allowed = ()
        return self.told

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.allowed:
            return
        if event == "open":
            path, mode, flags = given
            if not (isinstance(mode, str) and any(letter in mode for letter in "wxa+")) and not (flags or 0) & _WRITES:
                return
        elif event in _CHANGES:
            path = given[0]
        else:
            return
        if isinstance(path, int) or path is None:
            return
        place = os.path.abspath(os.fsdecode(path))
        fine = place in ("/dev/null", "/dev/tty") or place.startswith(("/dev/shm/", "/proc/"))
        if not fine and not any(place == one or place.startswith(f"{one}/") for one in self.allowed):
            self.told.append(f"{event} {place}")


def _data_bytes() -> int:
    """What the process holds now of what ``RLIMIT_DATA`` bounds."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData")))
    return 8 << 30


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """All files of a case's folder except those that its command may write."""
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
                about.st_mtime_ns * (size != 0),
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
        for first in range(0, len(numbers), TOGETHER):
            some = numbers[first : first + TOGETHER]
            for number in some:
                shutil.rmtree(cases / str(number), ignore_errors=True)
            for number, result in run_cases(some, seed, kit, cases):
                if "hang" in result.faults:  # on a busy machine once is no proof
                    shutil.rmtree(cases / str(number), ignore_errors=True)
                    ((_, result),) = run_cases([number], seed, kit, cases)
                yield number, result
                if not keep or (not result.faults and len(numbers) > 1):
                    shutil.rmtree(cases / str(number), ignore_errors=True)


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
