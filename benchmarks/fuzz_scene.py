"""What a case of the fuzzer draws from: values of options, and the folder that it is made in."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import copied
from fuzz_mutations import TEXTS

NUMBERS = ("0", "-1", "1", "2", "1e9", "0x10", "1_000", "１２", str(10**30), "nan", "", " 1", "1.5")
NAMES = ("own", "fam-tiny", "nobody/nothing", "hf-internal/none", *TEXTS[:28])
CHOICES = ("auto", "cpu", "cuda", "mps", "float32", "bfloat16", "left", "right", "middle", "none")
OPTIONS = {
    "--limit": ("1", "2", "3", "4", str(10**12), *NUMBERS),
    "--batch-size": ("1", "2", "3", str(10**12), *NUMBERS),
    "--max-context": ("100", "400", "1000", "9999", *NUMBERS),
    "--truncate": ("left", "right", "middle", *CHOICES),
    "--device": ("cpu",) * 8 + CHOICES,
    "--dtype": ("float32", "bfloat16") * 4 + CHOICES,
    "--seed": ("1", "2", *NUMBERS),
    "--chat-template-arg": ("a=1", "messages=2", "bos_token=null", "x", "=", *TEXTS[:20]),
    "--strip-thinking": ("1", "4", "0", "-1", "x"),
    "--adapter": ("../in/adapter", "../in/own", "nowhere", "", "\x00"),
    "--as": ("mine", "own", "a/b", "..", "x,y", *TEXTS[:28]),
    "--limit-documents": ("1", "2", *NUMBERS),
    "--split": ("all", "test", "", *TEXTS[:8]),
    "--on-error": ("skip", "stop", "x"),
}
FLAGS = ("--fresh", "--chat-template", "--json", "--dry-run", "--keep-prompts", "--leave-out")
HELD = ("0.5", "1", "0", "1.01", "-1", "1e-300", "1e400", *NUMBERS)
TASK_OPTIONS = (
    *(f"lengths={x}" for x in ("300", "1", "0", "1k,", "１k", str(10**30), "1T", "1G", "-1", "300,300", ",")),
    *(f"trials={x}" for x in ("1", "0", str(10**12), "１", "x", "-1", "1.5")),
    *(f"position={x}" for x in ("start", "grid", "random,start", "", "end")),
    *(f"key_digits={x}" for x in ("1", "9", "10", "0", "５")),
    *(f"split={x}" for x in ("all", "test", "x", "")),
    *(f"question_position={x}" for x in ("before", "both", "x")),
    *("skip_blank_lines=true", "skip_blank_lines=2", "data=sample", "data=", "x=y", "=", "x", "languages=english"),
)
OVERRIDES = (
    *(f"block_size={x}" for x in ("32", "0", "-1", str(10**30), "2147483648", "x")),
    *(f"memory_segments={x}" for x in ("1", "-1", str(10**12), "none")),
    *(f"fam_length={x}" for x in ("2", "0", str(10**9))),
    *(f"width={x}" for x in (str(10**9), "7")),
    *(f"layers={x}" for x in (str(10**9), "0")),
    *(f"vocab_size={x}" for x in (str(10**12), "3")),
    *(f"rope_theta={x}" for x in ("inf", "nan", "0")),
    *(
        "attention=bswa",
        "attention=full",
        "attention=x",
        "local_window=8",
        "local_layers=l",
        "sinks=1",
        "sinks=100000000",
    ),
    *("x=1", "=", "adapter=../in/adapter", "adapter=/", "block_size=1,block_size=2", "\x1b[31m=1", "norm_eps=1e-400"),
)


@dataclass
class Scene:
    """Where a case is made: ``inputs`` is beside the folder that the command runs in, and has what it reads."""

    rng: random.Random
    kit: Path
    inputs: Path

    def given(self, name: str) -> str:
        """An input as the command line names it."""
        return f"../in/{name}"

    def part(self, name: str) -> Path:
        """A part of the kit that the case may spoil."""
        return copied(self.kit, name, self.inputs)

    def some(self, pool: tuple[str, ...], chance: float) -> list[str]:
        """At times one of the pool."""
        return [self.rng.choice(pool)] if self.rng.random() < chance else []

    def options(self, chance: float = 0.25) -> list[str]:
        """Options that the verbs which run models have."""
        found = [flag for flag in FLAGS if self.rng.random() < chance / 2]
        for name, values in OPTIONS.items():
            if self.rng.random() < chance / 3:
                found += [name, self.rng.choice(values)]
        return found

    def spec(self, name: str, chance: float = 0.25) -> str:
        """A model, at times with overrides."""
        return ",".join([name, *self.some(OVERRIDES, chance)])
