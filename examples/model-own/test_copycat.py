from __future__ import annotations

from pathlib import Path

import pytest
import torch
from copycat import VOCABULARY, Copycat, find
from torch import Tensor

from famcli.errors import UserError


def tokens(text: str) -> Tensor:
    return torch.tensor([list(text.encode())])


def continued(model: Copycat, text: str, count: int) -> str:
    """What the model writes after ``text``."""
    state, new, written = model.start(1), tokens(text), []
    for _ in range(count):
        latents, state = model.read(new, state)
        new = model.logits(latents[:, -1]).argmax(-1, keepdim=True)
        written.append(int(new))
    return bytes(written).decode()


def test_copies_what_followed_the_longest_match() -> None:
    text = "The key of Ada is 12345. The key of Eva is 67890. " + "Filler. " * 999
    assert continued(Copycat(12, 4096), text + "The key of Ada is", 6) == " 12345"
    assert continued(Copycat(12, 4096), text + "The key of Eva is", 6) == " 67890"


def test_a_table_of_one_entry_forgets() -> None:
    assert "12345" not in continued(Copycat(12, 1), "The key is 12345. " + "Filler. " * 9 + "The key is", 6)


def test_any_chunking_gives_the_same_and_a_state_of_one_size() -> None:
    model, text = Copycat(5, 64), tokens("abcabdabcabdabe" * 9)
    whole, _ = model.read(text, model.start(1))
    state, found = model.start(1), []
    for chunk in text.split([1, 30, 4, 70, 30], dim=1):
        latents, state = model.read(chunk, state)
        found.append(latents)
        assert state.nbytes == model.state_bytes(1000)
    assert torch.equal(torch.cat(found, dim=1), whole)
    skipped = model.prefill(text, model.start(1))
    assert all(torch.equal(skipped.layers[0][name], state.layers[0][name]) for name in ("recent", "table"))


def test_forks_and_rows_go_their_own_ways_and_a_saved_state_goes_on(tmp_path: Path) -> None:
    model = Copycat(3, 64)
    state = model.prefill(tokens("ab. ab. "), model.start(1))
    state.fork().save(tmp_path / "state", {"of": "a text"}, {})
    two = model.prefill(torch.cat((tokens("ac. "), tokens("ad. "))), state.index([0, 0]))
    for model_state, following in ((two, "cd"), (state, "b")):
        latents, _ = model.read(tokens("a").repeat(len(following), 1), model_state)
        assert latents[:, -1, 0].tolist() == list(following.encode())
    loaded, texts, _ = model.load_state(tmp_path / "state")
    assert (texts["of"], loaded.tokens_read) == ("a text", 8)
    assert model.read(tokens("a"), loaded)[0][0, -1, 0] == ord("b")
    with pytest.raises(UserError, match="another model"):
        Copycat(3, 32).load_state(tmp_path / "state")


def test_logits_are_over_all_bytes_and_a_guess_without_a_match_says_nothing() -> None:
    logits = Copycat(3, 64).logits(torch.tensor([[65.0, 2.0], [0.0, 0.0]]))
    assert logits.shape == (2, VOCABULARY)
    assert int(logits[0].argmax()) == 65
    assert not logits[1].any()


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("twelve", {}, "longest"),
    ("0", {}, "at least 1"),
    ("", {"slot": "9"}, "no field 'slot'"),
    ("", {"slots": "x"}, "slots"),
]


@pytest.mark.parametrize(("argument", "fields", "words"), WRONG)
def test_what_is_wrong_is_named(argument: str, fields: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        find(argument, fields)


def test_stays_on_the_processor_whatever_device_is_asked_for() -> None:
    assert find("", {}).load(torch.device("meta"), torch.float32).device == torch.device("cpu")
