"""An answer, and what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from famcli.evaluation.drawing import Drawn
from famcli.task import Chosen, Generated, Predicted


class Answered(NamedTuple):
    """An answer, and what the journal keeps of it and of its prompt.

    Attributes:
        answer: it, or several that were drawn.
        kept: see ``Entry.answer``.
        prompt_sha256, prompt_tokens, state_bytes: see ``Entry``.
        computed_tokens: of the prompt, those behind what was shared that the model computed.
    """

    answer: Generated | Chosen | Predicted | Drawn
    kept: dict[str, Any]
    prompt_sha256: str
    prompt_tokens: int
    computed_tokens: int
    state_bytes: int


def kept_draw(answer: Generated, scores: Mapping[str, float]) -> dict[str, Any]:
    """What the journal keeps of one answer of several."""
    return {"text": answer.text, **kept(answer), "scores": dict(scores)}


def kept(answer: Generated | Chosen | Drawn) -> dict[str, Any]:
    """What the journal keeps of an answer; of several, each is kept with its scores."""
    if isinstance(answer, Drawn):
        return {}
    if isinstance(answer, Chosen):
        weighed = {"log_likelihoods": list(answer.log_likelihoods), "tokens": list(answer.tokens)}
        return weighed | ({"greedy": list(answer.greedy)} if answer.greedy else {})
    found: dict[str, Any] = {"token_ids": list(answer.token_ids)}
    found |= {"cut": True} if answer.cut else {}
    return found | ({"thinking_tokens": answer.thinking_tokens} if answer.thinking_tokens else {})
