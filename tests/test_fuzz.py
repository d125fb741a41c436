"""The fuzzer's short form: some cases over every verb; and the fuzzer sees what it is to see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FUZZ = ROOT / "benchmarks" / "fuzz.py"
CASES = 150


def test_no_spoilt_input_makes_a_traceback_a_hang_or_a_file_elsewhere() -> None:
    done = subprocess.run([sys.executable, FUZZ, f"--cases={CASES}", "--seed=7"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases in" in done.stdout
    assert "traceback 0, hang 0, memory 0, changed 0" in done.stdout


FAULTY = """
import sys, time
sys.path.insert(0, sys.argv[1])
import fuzz, famcli.cli.main
from pathlib import Path

def main(args):
    if args[0] == "raise":
        raise KeyError("x")
    if args[0] == "hang":
        time.sleep(60)
    if args[0] == "write":
        Path("../in/new").write_text("x")
    if args[0] == "native":
        import subprocess
        subprocess.run(["touch", "../in/native"])
    if args[0] == "die":
        import os
        os.kill(os.getpid(), 9)
    return 0

def make_case(rng, kit, folder):
    (folder / "in").mkdir(parents=True)
    (folder / "run").mkdir()
    return [["fine", "raise", "write", "native", "die", "hang"][int(folder.name)]]

famcli.cli.main.main, fuzz.make_case, fuzz.SECONDS, fuzz.BUSY = main, make_case, 2.0, 1
for number, result in fuzz.run_cases(range(6), 0, Path("."), Path(sys.argv[2])):
    print(number, sorted(result.faults))
"""


def test_the_fuzzer_sees_what_it_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAULTY, str(FUZZ.parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "0 []",
        "1 ['traceback']",
        "2 ['changed']",
        "3 ['changed']",
        "4 ['traceback']",
        "5 ['hang']",
    ]
