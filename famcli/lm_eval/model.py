"""``--model famcli --model_args model=SPEC``: any model of famcli as a model of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.rendering import render
from famcli.errors import UserError
from famcli.evaluation.prediction import predict
from famcli.evaluation.stream import StateKeeper
from famcli.lm_eval.sharing import Question, Reader
from famcli.seams import Ids
from famcli.task import Chosen, Generate, Generated, Prompt

LONGEST_ANSWER = 256
_BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens")
_BY_CHANCE = ("do_sample", "temperature")


@register_model("famcli")
class FamcliLM(TemplateLM):  # type: ignore[misc]  # the harness carries no types
    """The three requests of the harness. What prompts begin with alike is read once; a whole text in one stream.

    Attributes:
        reader: what reads; it counts the tokens.
    """

    def __init__(
        self, model: str, device: str | None = None, dtype: str = "auto", batch_size: Any = None, **fields: Any
    ) -> None:
        """Loads the model.

        Args:
            model: as ``famcli eval --model`` takes it, without fields.
            device: one of famcli's; the harness gives it from ``--device``.
            dtype: see ``famcli eval --dtype``.
            batch_size: most questions read together, ``auto`` or ``None`` for 16.
            fields: fields of the model, such as ``sinks=1``.

        Raises:
            UserError: as ``load_model``, or the model's tokenizer has no token that begins a text.
        """
        super().__init__()
        known = {name: value for name, value in fields.items() if name != "max_batch_size"}
        spec = ",".join([model, *(f"{name}={_text(value)}" for name, value in known.items())])
        self.loaded = load_model(spec, (device or "auto").partition(":")[0], dtype)
        rows = int(batch_size) if str(batch_size).isdecimal() else 16
        self.reader = Reader(self.loaded, max(1, rows))
        self.batch_size = rows
        if self.loaded.tokenizer.text_start is None:
            raise UserError(f"the tokenizer of {spec} has no token that begins a text, which the harness needs")

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return self.loaded.tokenizer.end_of_text

    @property
    def prefix_token_id(self) -> int | None:
        """The token that stands before a text that is predicted from its first token on."""
        return self.loaded.tokenizer.text_start

    @property
    def max_length(self) -> int:
        """The longest text, prompt and answer; without a bound more than any text has."""
        return self.loaded.stream.longest_text or 1 << 31

    @property
    def max_gen_toks(self) -> int:
        """Tokens of an answer where a task does not say."""
        return LONGEST_ANSWER

    @property
    def tokenizer_name(self) -> str:
        """Of prompts that the harness keeps."""
        return self.loaded.tokenizer.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; with what the tokenizer puts before a text, unless that is there or not wanted."""
        ids = self.loaded.tokenizer.encode(string)
        start = list(self.loaded.tokenizer.prompt_start)
        return ids if add_special_tokens is False or ids[: len(start)] == start else [*start, *ids]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that ``apply_chat_template`` renders; raises ``UserError`` where there is none."""
        return self._template().source if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a chat."""
        template = self._template()
        turns = {"messages": chat_history, "add_generation_prompt": add_generation_prompt}
        return render(template.source, {**turns, **template.special_tokens})

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each text, predicted from its first token on: in one stream, or in the windows that a bound makes."""
        return [self._rolling(self.tok_encode(request.args[0])) for request in requests]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model goes on with, the most likely token each time.

        Raises:
            UserError: answers are to be drawn by chance.
        """
        found = self.reader.answer([self._to_generate(*request.args[:2]) for request in requests])
        texts = []
        for request, reply in zip(requests, found, strict=True):
            assert isinstance(reply.answer, Generated)
            texts.append(reply.answer.text)
            self.cache_hook.add_partial("generate_until", request.args, reply.answer.text)
        return texts

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Of each continuation behind its context; those behind one context are weighed behind one reading."""
        pairs = [self._bounded(context, after) for _, context, after in requests]
        options: dict[tuple[int, ...], dict[tuple[int, ...], tuple[float, bool]]] = {}
        for context, after in pairs:
            if after:
                options.setdefault(context, {})[after] = (0.0, True)
        questions = [Question(_ids(context), tuple(behind)) for context, behind in options.items()]
        for question, reply in zip(questions, self.reader.answer(questions), strict=True):
            assert isinstance(reply.answer, Chosen)
            weighed = zip(reply.answer.log_likelihoods, reply.answer.greedy, strict=True)
            options[tuple(question.ids.tolist())] = dict(zip(question.options, weighed, strict=True))
        found = [options[context][after] if after else (0.0, True) for context, after in pairs]
        for (texts, _, _), one in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, one)
        return found

    def _bounded(self, context: Sequence[int], after: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What fits of a pair; the beginning is cut, as in the harness: the last token is predicted and not read."""
        kept = [*context, *after][-(self.max_length + 1) :]
        behind = min(len(after), len(kept) - 1)
        return tuple(kept[: len(kept) - behind]), tuple(kept[len(kept) - behind :])

    def _rolling(self, ids: list[int]) -> float:
        if not ids:
            return 0.0
        if len(ids) <= self.max_length:
            found = predict(
                self.loaded.stream, self.loaded.tokenizer, _ids(ids), StateKeeper(None), self.reader.advance
            )
            return float(found.log_likelihoods.sum(dtype=np.float64))
        windows = utils.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
        parts = [(None, *utils.make_disjoint_window(window)) for window in windows]
        return sum(likelihood for likelihood, _ in self._loglikelihood_tokens(parts))

    def _to_generate(self, context: str, settings: Mapping[str, Any]) -> Question:
        if any(settings.get(name) for name in _BY_CHANCE):
            raise UserError(
                f"answers are to be drawn by chance ({', '.join(name for name in _BY_CHANCE if settings.get(name))})",
                "famcli takes the most likely token: --gen_kwargs do_sample=false,temperature=0",
            )
        budget = next((int(settings[name]) for name in _BUDGETS if settings.get(name)), LONGEST_ANSWER)
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        if budget >= self.max_length:
            raise UserError(f"answers of {budget} tokens do not fit the model's context of {self.max_length}")
        begins = self.loaded.tokenizer.text_start
        assert begins is not None
        ids = self.tok_encode(context)[-(self.max_length - budget) :] or [begins]
        return Question(_ids(ids), request=Generate(Prompt(()), budget, tuple(stop for stop in stops if stop)))

    def _template(self) -> Any:
        if self.loaded.tokenizer.chat_template is None:
            raise UserError("the model's tokenizer has no chat template", "leave out --apply_chat_template")
        return self.loaded.tokenizer.chat_template


def _ids(ids: Sequence[Any]) -> Ids:
    return np.array(ids, np.int64)


def _text(value: Any) -> str:
    """A field as it is typed: the harness makes numbers and truth values of what it can."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
