"""What is installed is what runs: the wheel's content, the pinned versions and the bundled weights."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from famcli import __version__
from famcli.checkpoints.checkpoint import SHAPE_FIELDS
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.registry import bundled_directory, list_presets

ROOT = Path(__file__).parent.parent
LARGEST_WEIGHTS = 8_000_000
SUFFIXES = (".py", ".yaml", ".typed", ".safetensors", ".html", ".css", ".js")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is in the source tree, so that the tree stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "famcli", "tasks", "configs"):
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    return next(folder.glob("famcli-*.whl"))


def test_wheel_holds_all_modules_presets_and_weights(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed in (("famcli", "famcli"), ("tasks", "famcli/tasks"), ("configs", "famcli/configs")):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in SUFFIXES or file.parts[-3:-2] == ("weights",):
                assert f"{installed}/{file.relative_to(ROOT / folder)}" in held
    assert wheel.name.startswith(f"famcli-{__version__}-")
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_installed_wheel_finds_its_tasks_and_presets(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    code = (
        "import famcli.tasks.passkey as p, famcli.task as t\n"
        "import famcli.checkpoints.registry as r, famcli.evaluation.suites as o\n"
        "print(p.__file__, t.available_tasks()['passkey'].__module__, len(r.list_presets()), len(o.list_suites()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    file, module, presets, suites = done.stdout.split()
    assert Path(file) == tmp_path / "famcli" / "tasks" / "passkey.py"
    assert (module, int(presets)) == ("famcli.tasks.passkey", len(list_presets()))
    assert int(suites) >= 1


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    found = {"famcli.configs", "famcli.tasks"}
    found |= {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "famcli").rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == found


@pytest.mark.slow
def test_the_wheel_alone_lists_its_tasks_and_models_anywhere(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, with the packages of this one; the source tree is out of sight."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def famcli(*args: str) -> str:
        command = [python.with_name("famcli"), *args]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
        ).stdout

    where = subprocess.check_output([python, "-c", "import famcli; print(famcli.__file__)"], cwd=elsewhere, text=True)
    assert Path(where.strip()).parent == site / "famcli"
    listed = json.loads(famcli("list", "tasks", "--json"))
    assert {task["name"] for task in listed["tasks"]} >= {
        "passkey",
        "narrativeqa",
        "qasper",
        "quality",
        "xlsum",
        "pg19",
    }
    assert {suite["name"] for suite in listed["suites"]} >= {"quick", "ci"}
    models = {model["name"]: model["here"] for model in json.loads(famcli("list", "models", "--json"))["models"]}
    assert Path(models["fam-tiny"]).is_relative_to(site)
    run = famcli("eval", "--task", "passkey", "--model", "fam-tiny", "-o", "lengths=512", "-o", "trials=1", "--json")
    assert json.loads(run)["runs"][0]["metrics"]["accuracy"]["n"] == 1


def test_the_image_is_built_from_files_that_are_there_and_with_the_tested_torch() -> None:
    """No container can be built here: what its recipe names must exist, and be let through to it."""
    recipe = (ROOT / "Dockerfile").read_text()
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE)
    names = {name for group in copied for name in group.split()}
    assert names == let_through
    assert all((ROOT / name).exists() for name in names)
    torch = re.search(r"torch==\S+", recipe)
    assert torch
    assert torch[0] in (ROOT / "constraints.txt").read_text().split()
    assert re.search(r"^USER (?!root)", recipe, re.MULTILINE)


def test_every_requirement_is_pinned_torch_first(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    form = re.compile(r"[A-Za-z0-9._-]+==[0-9.]+(post[0-9]+)?")
    assert all(form.fullmatch(pin) for pin in pins), "no local builds, no ranges"
    assert pins[0] == "torch==2.13.0"
    pinned = {pin.partition("==")[0].lower().replace("-", "_") for pin in pins}
    metadata = project["project"]
    wanted = [*metadata["dependencies"], *(r for extra in metadata["optional-dependencies"].values() for r in extra)]
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name
        assert name[0].lower().replace("-", "_") in {*pinned, "famcli"}


def test_every_import_is_declared(project: dict[str, Any]) -> None:
    """What famcli imports outside the standard library is a dependency; what only an extra needs is in that extra."""
    imported = set()
    for file in [*(ROOT / "famcli").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    imported -= {*sys.stdlib_module_names, "famcli"}
    names = {"pyyaml": "yaml", "rouge-score": "rouge_score", "mlflow-skinny": "mlflow"}
    metadata = project["project"]
    extras = {name: needed for name, needed in metadata["optional-dependencies"].items() if name != "test"}
    declared = [*metadata["dependencies"], *(requirement for needed in extras.values() for requirement in needed)]
    declared_names = {re.split(r"[<>=]", requirement)[0] for requirement in declared}
    assert imported == {names.get(name, name) for name in declared_names}


def test_bundled_weights_are_small_whole_and_alike() -> None:
    checkpoints = {
        preset.name: open_checkpoint(bundled_directory(preset.name)) for preset in list_presets() if preset.base is None
    }
    assert set(checkpoints) == {"fam-tiny", "bswa-tiny"}
    for name, checkpoint in checkpoints.items():
        assert checkpoint.config.attention == name.split("-")[0]
        assert (checkpoint.path / "model.safetensors").stat().st_size < LARGEST_WEIGHTS
        assert (checkpoint.path / "README.md").stat().st_size > 0
    fam, bswa = (checkpoint.config for checkpoint in checkpoints.values())
    assert all(getattr(fam, field) == getattr(bswa, field) for field in SHAPE_FIELDS)


def test_the_release_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) – (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest.groups() == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == __version__
    assert citation["references"][0]["title"] in (ROOT / "README.md").read_text()
