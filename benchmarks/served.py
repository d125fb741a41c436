"""A model behind an endpoint is asked while famcli and the server are killed, and while questions fail, stall and break
off. Every sample must be answered, and none be asked twice for nothing.

    python benchmarks/served.py --url http://127.0.0.1:8000/v1 --model NAME
    python benchmarks/served.py --url http://127.0.0.1:8000/v1 --model NAME \\
        --server "transformers serve ./my-model --port 8000" -- --task quality --data ./my-data --limit 20

The server runs already, or is started, killed once and started again with ``--server``. famcli is called as a user
calls it, and asks through a proxy on this machine that counts. A sample is asked twice for nothing where famcli had all
its answers half a second before it was killed, and asks again.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from served_proxy import FAULTS, Proxy, Question, between

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main())"]
TASK = ["--task", "passkey", "-o", "lengths=300,600", "-o", "trials=10"]
GRACE = 0.5
"""Seconds before a kill in which an answer may be on its way to the disk."""
STARTING = 600
"""Seconds that a server may take."""
COULD_NOT = 2
"""The exit code of famcli where the server is gone."""

Samples = dict[str, dict[str, Any]]


def samples_of(output: Path) -> Samples:
    """The lines of all journals, in the order of the runs and of the lines; a last one without its end is left out."""
    runs = sorted(output.glob("*/run.json"), key=lambda file: json.loads(file.read_text())["started"])
    found: Samples = {}
    for run in runs:
        lines = (run.parent / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        for entry in map(json.loads, lines):
            assert f"{run.parent.name} {entry['id']}" not in found, "a sample is there twice"
            found[f"{run.parent.name} {entry['id']}"] = entry
    return found


class Server:
    """A server that is started here; without a command, one that somebody else has started."""

    def __init__(self, command: str, url: str) -> None:
        self.command, self.url = command, url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.command:
            self._process = subprocess.Popen(shlex.split(self.command), stdout=subprocess.DEVNULL)
        end = time.monotonic() + STARTING
        while not self._answers():
            if time.monotonic() > end or (self._process and self._process.poll() is not None):
                raise SystemExit(f"no server answers at {self.url}")
            time.sleep(0.5)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/models", timeout=10):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@contextmanager
def started(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Asking:
    """Runs of one command through one proxy.

    Attributes:
        proxy: it.
        model: as the endpoint calls it, with fields that follow.
        task: the rest of the command.
        timeout: seconds until famcli gives an answer up.
        of_key: the sample that a question is about.
        keys: the questions about a sample.
    """

    proxy: Proxy
    model: str
    task: Sequence[str]
    timeout: float
    of_key: dict[str, str] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)

    def start(self, output: Path, *fields: str) -> subprocess.Popen[str]:
        model = ",".join([f"openai:{self.proxy.url}", f"model={self.model}", f"timeout={self.timeout:g}", *fields])
        command = [*FAMCLI, "eval", *self.task, "--model", model, "--output", str(output)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, output: Path, *fields: str) -> Samples:
        """Lets the command run to its end."""
        process = self.start(output, *fields)
        _, said = process.communicate()
        assert process.returncode == 0, said
        return samples_of(output)

    def unbroken(self, output: Path) -> Samples:
        """The samples of a run that asks one question after the other, which tells what each is asked."""
        found = self.finish(output, "concurrency=1")
        asked = iter(self.proxy.questions)
        for sample, entry in found.items():
            self.keys[sample] = {question.key for question in islice(asked, entry["requests"])}
            self.of_key |= dict.fromkeys(self.keys[sample], sample)
        assert next(asked, None) is None, "more was asked than the samples need"
        return found

    def stopped(self, output: Path, answers: int, stop: Callable[[], None] | None = None) -> float | None:
        """Kills a run after so many answers, or calls ``stop`` and lets it end; gives when, ``None`` where it was over
        before.
        """
        enough = self.proxy.answered + answers
        process = self.start(output)
        while self.proxy.answered < enough and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            return None
        at = time.monotonic()
        if stop is None:
            process.kill()
        else:
            stop()
        _, said = process.communicate()
        assert "Traceback" not in said, said
        assert process.returncode == (-signal.SIGKILL if stop is None else COULD_NOT), (process.returncode, said)
        return at

    def for_nothing(self, questions: Sequence[Question], kills: Sequence[float]) -> set[str]:
        """The samples that were asked about although famcli had all their answers well before it was killed."""
        first: dict[str, float] = {}
        for question in questions:
            killed = next((at for at in kills if at > question.asked), float("inf"))
            if question.answered is not None and question.answered < killed - GRACE:  # else nobody may have read it
                first[question.key] = min(first.get(question.key, question.answered), question.answered)
        found = set()
        for question in questions:
            sample = self.of_key[question.key]
            whole = max(first.get(key, float("inf")) for key in self.keys[sample])
            if whole < question.asked:
                found.add(sample)
        return found


def against(expected: Samples, found: Samples) -> str:
    """What of an unbroken run a broken one lacks."""
    both = expected.keys() & found.keys()
    others = sum(expected[name]["output"] != found[name]["output"] for name in both)
    return f"{len(expected.keys() - found.keys())} samples lost" + (f", {others} answered otherwise" if others else "")


def killed(asking: Asking, expected: Samples, output: Path, kills: int, server: Server, chance: random.Random) -> str:
    """Kills famcli so many times, and the server once; then lets the run end."""
    begun, at = len(asking.proxy.questions), list[float]()
    share = max(1, len(asking.of_key) // (kills + 2))
    rounds: list[Callable[[], None] | None] = [None] * kills
    if server.command:
        rounds.insert(kills // 2, server.kill)
    for stop in rounds:
        moment = asking.stopped(output, chance.randint(1, share), stop)
        assert moment is not None, "the run was over before it was killed: more samples are needed"
        at.append(moment)
        if stop is not None:
            server.start()
    found = asking.finish(output)
    questions = asking.proxy.questions[begun:]
    again = sum(not question.fault for question in questions) - len(asking.of_key)
    nothing = asking.for_nothing(questions, at)
    of_server = ", the server once" if server.command else ""
    return (
        f"famcli killed {kills} times{of_server}: {against(expected, found)}, {len(nothing)} asked twice for nothing; "
        f"{again} questions asked again that were under way"
    )


def faulty(asking: Asking, expected: Samples, output: Path, times: int) -> str:
    """Lets every fault befall some of the questions."""
    begun, every = len(asking.proxy.questions), max(2, len(asking.of_key) // (times * len(FAULTS)))

    def fault_of(number: int) -> str:
        turn, rest = divmod(number - begun, every)
        return FAULTS[turn % len(FAULTS)] if rest == 1 and turn < times * len(FAULTS) else ""

    asking.proxy.fault_of, asking.proxy.stall = fault_of, asking.timeout + 1
    found = asking.finish(output)
    asking.proxy.fault_of = lambda number: ""
    questions = asking.proxy.questions[begun:]
    faults = Counter(question.fault for question in questions if question.fault)
    again = len(questions) - len(asking.of_key)
    words = ", ".join(f"{count} x {name}" for name, count in faults.items())
    return f"{words}: {against(expected, found)}, {again - faults.total()} asked twice for nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the endpoint, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True, help="its name there; fields may follow: NAME,api=chat")
    parser.add_argument("--server", default="", metavar="COMMAND", help="starts the server, which is then killed too")
    parser.add_argument("--kills", type=int, default=5, help="of famcli")
    parser.add_argument("--faults", type=int, default=2, help="of each kind")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until an answer must be there")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("task", nargs="*", default=TASK, help=f"what famcli eval runs, after --: {' '.join(TASK)}")
    args = parser.parse_args()
    server = Server(args.server, args.url.rstrip("/"))
    with tempfile.TemporaryDirectory() as name, started(server), between(server.url) as proxy:
        folder, asking = Path(name), Asking(proxy, args.model, args.task, args.timeout)
        begun = time.monotonic()
        expected = asking.unbroken(folder / "whole")
        seconds = time.monotonic() - begun
        print(f"{len(expected)} samples, {len(asking.of_key)} questions, in {seconds:.0f} s", flush=True)
        chance = random.Random(args.seed)
        print(killed(asking, expected, folder / "killed", args.kills, server, chance), flush=True)
        print(faulty(asking, expected, folder / "faulty", args.faults), flush=True)


if __name__ == "__main__":
    main()
