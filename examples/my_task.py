"""A task for famcli in one file: questions of your own about a text of your own."""

from __future__ import annotations

from functools import partial

from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Task

TEXT = "Ada keeps the blue key. Boris keeps the red key. " + "The grass is green. The sky is blue. " * 50
QUESTION = "\nQuestion: Who keeps the {colour} key?\nAnswer:"
KEEPERS = {"blue": "Ada", "red": "Boris"}


class MyTask(Task):
    name = "my-task"
    version = 1
    summary = "who keeps which key"
    metrics = (MetricSpec("accuracy"),)
    template = QUESTION

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        return [
            Sample(colour, {}, keeper, partial(request, colour), partial(score, keeper), document="keys")
            for colour, keeper in KEEPERS.items()
        ][:limit]


def request(colour: str) -> Generate:
    return Generate(Prompt((TEXT, QUESTION.format(colour=colour)), document=0), max_new_tokens=8, stop=("\n",))


def score(keeper: str, answer: Generated) -> dict[str, float]:
    return {"accuracy": float(keeper in answer.text)}
