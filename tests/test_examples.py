"""The packages of ``examples/``, installed into an environment of their own as a stranger would install them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ("memory-running-mean", "model-own", "task-multi-needle")
FAMCLI = ("-c", "import sys; from famcli.cli.main import main; sys.exit(main())")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Python in an environment that has the examples, and all else from the environment that runs this test."""
    folder = tmp_path_factory.mktemp("examples")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(purelib, "running.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for name in EXAMPLES:
        shutil.copytree(ROOT / "examples" / name, folder / name)  # a build leaves files beside its sources
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", *(folder / name for name in EXAMPLES)], check=True)

    def run(*arguments: str, code: int = 0) -> str:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        done = subprocess.run(
            [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def after(table: str, name: str) -> list[str]:
    """The words that follow the cell ``name`` in the one line of ``table`` that has it."""
    (found,) = re.findall(f"(?:^|  ){name}  (.*)", table, re.MULTILINE)
    return str(found).split()


def test_their_own_tests_pass(run: Run) -> None:
    assert re.search(r"^\d+ passed", run("-m", "pytest", "-q", "-p", "no:cacheprovider", *EXAMPLES), re.MULTILINE)


@pytest.mark.slow
def test_the_suite_of_all_memories_takes_in_that_of_an_installed_package(run: Run) -> None:
    suite = str(ROOT / "tests" / "test_memories.py")
    out = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), suite, "-k", "running-mean")
    assert int(re.findall(r"^(\d+) passed", out, re.MULTILINE)[0]) > 10


def test_the_memory_reads_beside_bswa_and_fam(run: Run) -> None:
    memory, bswa, fam = (
        f"{name},block_size=1024" for name in ("bswa-tiny,attention=running-mean", "bswa-tiny", "fam-tiny")
    )
    task = ("--task", "passkey", "-o", "lengths=1k,3k", "-o", "trials=2", "--output", "memory")
    assert "running-mean: the mean of all blocks so far in a few slots" in run(*FAMCLI, "list", "memories")
    out = run(*FAMCLI, "eval", *task, "--model", memory, "--model", bswa, "--model", fam)
    assert f"{memory} on passkey\nreceptive field:     unbounded" in re.sub(" {2,}", "     ", out)
    table = run(*FAMCLI, "compare", "--output", "memory")
    # A long spec is shown by what it does not share with the others.
    assert after(table, "task") == ["cell", memory.removesuffix(",block_size=1024"), bswa, fam]
    scores = {length: after(table, f"start {length}")[::4] for length in ("1k", "3k")}
    assert scores == {"1k": ["1.000", "1.000", "1.000"], "3k": ["0.000", "0.000", "1.000"]}


def test_the_model_recalls_at_any_length(run: Run) -> None:
    assert "of other packages: copycat\n" in run(*FAMCLI, "list", "models")
    options = ("-o", "lengths=1k,64k", "-o", "trials=2", "--output", "model")
    out = run(*FAMCLI, "eval", "--task", "passkey", "--model", "copycat", "--model", "copycat:12,slots=1", *options)
    able, small = out.split("copycat:12,slots=1 on passkey")
    assert after(able, "accuracy")[0] == "1.000"
    assert after(small, "accuracy")[0] == "0.000"
    # Continued, not made again: the same command finds both runs finished.
    assert "run record" in run(*FAMCLI, "eval", "--task", "passkey", "--model", "copycat", *options)
    assert "has no field 'slot'" in run(*FAMCLI, "eval", "--task", "passkey", "--model", "copycat,slot=1", code=2)


def test_the_task_is_listed_and_asks_each_key_of_a_text_that_is_read_once(run: Run) -> None:
    assert "multi-needle (version 1): recall of several random keys by name" in run(*FAMCLI, "list", "tasks")
    options = ("-o", "keys=3", "-o", "length=1024", "-o", "trials=2", "--output", "task")
    out = run(*FAMCLI, "eval", "--task", "multi-needle", "--model", "copycat", *options)
    assert after(out, "accuracy")[0] == "1.000"
    assert "6,072 tokens would be read, 2.8 times as many" in out
    assert "copycat" in run(*FAMCLI, "list", "runs", "--output", "task")


def test_the_docs_quote_the_files_as_they_are() -> None:
    text = (ROOT / "docs" / "extend.md").read_text()
    quoted = dict(re.findall(r"^<!-- (\S+) -->\n```[a-z]+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    files = [*ROOT.glob("examples/*.py"), *ROOT.glob("examples/*/*.py"), *ROOT.glob("examples/*/pyproject.toml")]
    assert set(quoted) == {str(file.relative_to(ROOT)) for file in files if not file.name.startswith("test_")}
    for name, content in quoted.items():
        assert (ROOT / name).read_text() == content


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", *(f"docs/{f.name}" for f in ROOT.glob("docs/*.md"))])
def test_links_lead_to_files(file: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / file).read_text()):
        assert (ROOT / file).parent.joinpath(target).exists(), target
