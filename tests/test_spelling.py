"""What an endpoint says of its tokens, and what of the text each of them is."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest

from famcli.checkpoints.spelling import pieces_of

WORDS = ["the ", "cat", " sat", "“", "”", "é", "…", "—", " ", "日", "😀", "x", "\n"]
TOLD: dict[str, Callable[[bytes], str]] = {
    "as U+FFFD": lambda piece: piece.decode(errors="replace"),
    "as nothing": lambda piece: piece.decode(errors="ignore"),
    "as bytes": lambda piece: _whole(piece) or "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece),
}


def _whole(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize("seed", range(100))
def test_tokens_of_bytes_are_found_where_they_lie(told: Callable[[bytes], str], seed: int) -> None:
    chance = random.Random(seed)
    words = [word for _ in range(chance.randint(1, 12)) for word in ("ab", chance.choice(WORDS))]
    text = "".join(words)
    content = text.encode()
    inside = [
        place
        for at, word in zip(accumulate(map(_bytes, words), initial=0), words, strict=False)
        for place in range(at + 1, at + _bytes(word))
        if not word.isascii()
    ]  # no token has parts and more
    bounds = sorted({0, *accumulate(map(_bytes, words)), *chance.sample(inside, len(inside) // 2)})
    pieces = [content[low:high] for low, high in pairwise(bounds)]
    found = pieces_of([*map(told, pieces), "generated"], text)
    assert found is not None and "".join(found) == text and len(found) == len(pieces)
    for place in range(0, len(text), 1):
        after = len(text[:place].encode())
        if after in bounds:  # a token begins there: those behind it are those behind it
            expected = [high > after for _, high in pairwise(bounds)]
            assert [end > place for end in accumulate(map(len, found))] == expected


def _bytes(word: str) -> int:
    return len(word.encode())


def test_a_space_may_stand_in_the_same_token_as_the_first_part() -> None:
    assert pieces_of(["He", " \ufffd", "\ufffd", "I", "!"], "He “I") == ["He", " ", "“", "I"]
    assert pieces_of(["a", "\ufffd", "\ufffd", "!"], "a“") == ["a", "“", ""]


@pytest.mark.parametrize(
    "tokens", [["other"], [], ["a"], ["a", None, "b"], ["a", "\ufffd", "b"], ["a", "\ufffd", "c"], ["Ġa", "b"]]
)
def test_what_does_not_spell_the_text_is_said(tokens: list[str]) -> None:
    assert pieces_of(tokens, "ab") is None


def test_a_part_is_no_more_than_a_character() -> None:
    assert pieces_of(["a", "\ufffd", "\ufffd", "c"], "a“”c") == ["a", "“", "”", "c"]
    assert pieces_of(["a", "\ufffd", "c"], "a“”c") is None
    assert pieces_of(["a", "\ufffd", "!"], "a“”") is None
