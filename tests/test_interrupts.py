"""The program's signals and streams: Ctrl-C at any moment is one line, and a reader that goes away costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from famcli.cli.verbs import KEPT_BLOCKS
from famcli.evaluation.stream import KEEP_EVERY

PROGRAM = "import sys; from famcli.cli.main import main; sys.exit(main())"


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("eval", "repeat the command: answered samples are kept, and of a text the state after every 64 blocks"),
        ("train", "--resume goes on from a checkpoint, if one was written"),
        ("compare", "repeat the command"),
    ],
)
@pytest.mark.parametrize("module", ["famcli.cli.command", "click", "famcli.cli.streams"])
def test_an_interrupt_within_an_import_is_one_line(verb: str, words: str, module: str) -> None:
    """Imports that catch everything, as those of some packages do, cannot swallow it."""
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{module}':\n"
        "            try:\n"
        "                os.kill(os.getpid(), signal.SIGINT)\n"
        "            except BaseException: pass\n"
        "sys.meta_path.insert(0, Finder())\n"
        + PROGRAM
    )  # fmt: skip
    done = python(code, verb)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\ninterrupted: {words}\n")


def test_what_is_said_to_be_kept_is_what_is_kept() -> None:
    assert KEPT_BLOCKS == KEEP_EVERY


def test_an_interrupt_that_python_cannot_raise_is_raised_soon() -> None:
    code = (
        "import os, signal, time\n"
        "from famcli.cli.interrupts import leave_at_once, leave_in_order\n"
        "class Gone:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)\n"
        "leave_at_once()\n"
        "leave_in_order()\n"
        "begun = time.monotonic()\n"
        "try:\n"
        "    gone = Gone()\n"
        "    del gone\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt: print('raised', time.monotonic() - begun < 10)\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised True\n", "")


@pytest.mark.parametrize("args", [["list", "tasks"], ["list", "tasks", "--json"], ["--help"], ["list", "runs"]])
def test_a_reader_that_goes_away_costs_nothing(args: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_code_is_that_of_the_command_whoever_reads() -> None:
    """On standard error too: both may lead into one pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", PROGRAM, "nothing"], stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(closed: str) -> None:
    command = f'exec "{sys.executable}" -c "{PROGRAM}" list runs {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
