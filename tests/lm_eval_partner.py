"""A decoder in lm-evaluation-harness, as one would put it there without famcli: each request is read by itself.

Nothing is shared, batched or kept between two requests. Prompts are built by the harness from the records of the data,
tokens are bytes, and the log-likelihoods of tokens are added up in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

if TYPE_CHECKING:
    from famcli.models.decoder import Decoder

BYTES = 256
END_OF_TEXT = 256


class DecoderLM(LM):  # type: ignore[misc]  # the harness carries no types
    """The three requests of the harness, over bytes.

    Attributes:
        tokens_read: tokens that the decoder has been fed.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.tokens_read = 0

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Of each continuation after its context, and whether it is what greedy decoding gives."""
        texts = [request.args for request in requests]
        return [self._weigh(list(context.encode()), list(after.encode())) for context, after in texts]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Of each text in one window, its first token after the end of a text."""
        return [self._weigh_whole(list(request.args[0].encode())) for request in requests]

    @torch.no_grad()
    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """What greedy decoding gives after each context, before the first of the strings ``until``."""
        return [self._generate(*request.args) for request in requests]

    def _weigh_whole(self, tokens: list[int]) -> float:
        windows = get_rolling_token_windows(tokens, END_OF_TEXT, max_seq_len=len(tokens), context_len=1)
        return sum(self._weigh(*make_disjoint_window(window))[0] for window in windows)

    @torch.no_grad()
    def _weigh(self, context: list[int], after: list[int]) -> tuple[float, bool]:
        latents, _ = self._read([*context, *after[:-1]], self.decoder.start(1))
        likelihoods = self.decoder.logits(latents[0, -len(after) :]).double().log_softmax(-1)
        wanted = torch.tensor(after, device=likelihoods.device)
        total = likelihoods.gather(1, wanted[:, None]).sum().item()
        return total, bool((likelihoods.argmax(-1) == wanted).all())

    def _generate(self, context: str, settings: Mapping[str, Any]) -> str:
        latents, state = self._read(list(context.encode()), self.decoder.start(1))
        text = b""
        stops = [stop.encode() for stop in settings["until"]]
        budget = settings.get("max_gen_toks", 256)
        while len(text) < budget and not any(stop in text for stop in stops):
            token = int(self.decoder.logits(latents[0, -1]).argmax())
            if token >= BYTES:
                break
            text += bytes([token])
            latents, state = self._read([token], state)
        ends = [text.index(stop) for stop in stops if stop in text]
        return text[: min(ends, default=None)].decode(errors="replace")

    def _read(self, tokens: list[int], state: Any) -> tuple[Tensor, Any]:
        self.tokens_read += len(tokens)
        return self.decoder.read(torch.tensor([tokens], device=self.decoder.embedding.weight.device), state)


def quality_task(articles: Iterable[Mapping[str, Any]]) -> ConfigurableTask:
    """Multiple choice on articles ``{article, questions[...]}`` as QuALITY released them, worded as SCROLLS."""
    return _task(
        "quality",
        _questions(articles),
        output_type="multiple_choice",
        doc_to_text="{{article}}\n\nQuestion: {{question}}\nAnswer:",
        doc_to_choice="options",
        doc_to_target="gold",
        metric_list=[
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    )


def _questions(articles: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for article in articles:
        for question in article["questions"]:
            yield {
                "id": question["question_unique_id"],
                "article": article["article"],
                "question": question["question"],
                "options": [" ".join(option.split()) for option in question["options"]],
                "gold": question["gold_label"] - 1,
            }


def reading_task(books: Iterable[Mapping[str, Any]]) -> ConfigurableTask:
    """Perplexity of whole books ``{url, text}``, as the harness has it for texts."""
    rows = ({"id": book["url"].rpartition("/")[2], "text": book["text"]} for book in books)
    return _task("reading", rows, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}")


def _task(name: str, rows: Iterable[Mapping[str, Any]], **config: Any) -> ConfigurableTask:
    table = Dataset.from_list(list(rows))
    fixed = {"task": name, "custom_dataset": lambda **_: {"test": table}, "test_split": "test", "num_fewshot": 0}
    return ConfigurableTask(config={**fixed, **config})


def run(model: DecoderLM, task: ConfigurableTask) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Runs a task through the harness's own evaluator.

    Returns:
        Its results, such as ``acc,none``; and what it logged of each sample by the ``id`` of its record.
    """
    name = task.task_name
    found = evaluate(lm=model, task_dict={"tasks": {name: task}, "groups": {}}, bootstrap_iters=0)
    return found["results"][name], {sample["doc"]["id"]: sample for sample in found["samples"][name]}
