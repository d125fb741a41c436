"""The verbs, by what the program must know of them before it imports anything."""

from __future__ import annotations

from typing import NamedTuple

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
KEPT_BLOCKS = 64
"""As ``famcli.evaluation.stream.KEEP_EVERY``, which takes long to import."""
GOES_ON = f"repeat the command: answered samples are kept, and of a text the state after every {KEPT_BLOCKS} blocks"


class Verb(NamedTuple):
    """Where a verb's click command ``command`` lives, the line ``famcli --help`` shows, and what to do after Ctrl-C."""

    module: str
    help: str
    after_interruption: str = "repeat the command"


VERBS = {
    "eval": Verb("famcli.cli.eval", "Evaluate models on tasks; the same command continues a broken run.", GOES_ON),
    "merge": Verb("famcli.cli.merge", "Merge the shards of a run that several machines answered."),
    "compare": Verb("famcli.cli.compare", "Set the newest runs side by side."),
    "show": Verb("famcli.cli.show", "Show the samples of a run, or one of them as the model saw it."),
    "report": Verb("famcli.cli.report", "Write one HTML page about runs: verdicts, plots, samples."),
    "profile": Verb(
        "famcli.cli.profile",
        "Measure what reading costs: time, memory and state by length.",
        "what was measured is shown above; repeat the command for all of it",
    ),
    "check": Verb("famcli.cli.check", "Hold runs against a baseline: a gate for CI."),
    "sweep": Verb("famcli.cli.sweep", "Run every combination of values of model fields.", GOES_ON),
    "list": Verb("famcli.cli.list", "List models, tasks or runs."),
    "data": Verb("famcli.cli.data", "Fetch, describe or check the data of tasks; make questions to train with."),
    "train": Verb(
        "famcli.cli.train", "Train a model by a recipe.", "--resume goes on from a checkpoint, if one was written"
    ),
}


def interrupted(verb: str | None) -> str:
    """The line after Ctrl-C."""
    return f"\ninterrupted: {VERBS[verb].after_interruption if verb in VERBS else 'nothing was changed'}"
