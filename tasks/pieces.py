"""Pieces of a generated text in one tokenizer's tokens: filler that costs no tokenising, and how long prompts are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from famcli.seams import Head, join, special_of
from famcli.task import Encoder, Segment

Ids = NDArray[np.int64]


def going_on(text: str, tokenizer: Encoder) -> Ids:
    """Token ids [t] of a text behind token ids, which it leaves as they are."""
    return join(Head(None), (text,), tokenizer).ids


def prompt_tokens(segments: Sequence[Segment], tokenizer: Encoder) -> int:
    """Tokens of a whole prompt, with the start token and the chat template that stand around it."""
    special = special_of(tokenizer)
    return len(special.start) + join(Head(), special.around(segments), tokenizer).tokens


def tokens_before(tokenizer: Encoder) -> int:
    """Tokens that stand before every prompt: the start token, or the beginning of the chat template."""
    special = special_of(tokenizer)
    return len(special.start) + join(Head(), special.around(())[:1], tokenizer).tokens


class Filler:
    """A text repeated for ever, a space between two of them, in tokens. Its beginning is what goes on after others.

    Args:
        text: of one repetition.
        before: the text right before the first one, such as a line break; its tokens are no part of the filler.
        tokenizer: the evaluated model's.
    """

    def __init__(self, text: str, before: str, tokenizer: Encoder) -> None:
        self.before = len(going_on(before, tokenizer)) if before else 0
        self.first_unit = going_on(before + text, tokenizer)[self.before :]
        self.next_unit = join(join(Head(), (text,), tokenizer).head, (" " + text,), tokenizer).ids
        self._ids = self.first_unit

    def tokens(self, count: int) -> Ids:
        """The first ``count`` token ids: a view that all prompts share."""
        if count > len(self._ids):
            self._ids = np.concatenate((self.first_unit, np.resize(self.next_unit, count - len(self.first_unit))))
        return self._ids[:count]
