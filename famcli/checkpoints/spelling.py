"""Finds what of a text each token stands for, from what an endpoint says of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_UNKNOWN = "\ufffd"


def pieces_of(tokens: Sequence[Any], text: str) -> list[str] | None:
    """What of ``text`` each of the first tokens stands for, together all of it; ``None`` where they do not spell it.

    A token that is a part of a character, such as one of the bytes of a curly quote, is told as nothing, as U+FFFD or
    as ``bytes:\\xe2``, by server: what such tokens stand for is what lies before the next one that can be read.
    """
    pieces: list[str] = []
    parts: list[str] = []
    at = 0
    for token in tokens:
        if not isinstance(token, str):
            return None
        if at == len(text) and not parts:
            break
        if _is_part(token, text, at):
            parts.append(token)
            continue
        begin = _behind(parts, token, text, at)
        if begin is None:
            break
        pieces += [*_shared(text[at:begin], len(parts)), token]
        at, parts = begin + len(token), []
    if parts and _may_be(parts, text[at:]):
        return [*pieces, *_shared(text[at:], len(parts))]
    return pieces if at == len(text) else None


def _is_part(token: str, text: str, at: int) -> bool:
    told = not token or _UNKNOWN in token or token.startswith("bytes:")
    return told and not (token and text.startswith(token, at))


def _behind(parts: Sequence[str], token: str, text: str, at: int) -> int | None:
    """Where a token begins that follows parts of characters."""
    most = len(parts) + len(_seen(parts))
    for begin in range(at, min(at + most, len(text)) + 1):
        if text.startswith(token, begin) and (_may_be(parts, text[at:begin]) if parts else begin == at):
            return begin
    return None


def _may_be(parts: Sequence[str], text: str) -> bool:
    """Whether parts of characters can spell this."""
    if not text:
        return not any(parts)
    seen = _seen(parts)
    return len(text) <= len(parts) + len(seen) and all(sign in seen or not sign.isascii() for sign in text)


def _seen(parts: Sequence[str]) -> str:
    """What can be read of parts of characters: a space may stand in one token with the first part."""
    return "".join(part for part in parts if not part.startswith("bytes:")).replace(_UNKNOWN, "")


def _shared(text: str, parts: int) -> list[str]:
    """A character counts with the first of its tokens, so that what begins with it begins there."""
    ends = [0, *(-(-len(text) * (part + 1) // parts) for part in range(parts))]
    return [text[low:high] for low, high in pairwise(ends)]
