from __future__ import annotations

import pytest
from multi_needle import ANSWER_TOKENS, MultiNeedle, whole_number

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Generate, Generated

TOKENIZER = ByteTokenizer()


def test_every_key_stands_at_its_distance_and_the_longest_prompt_has_the_length() -> None:
    task = MultiNeedle.from_options({"keys": "5", "length": "700", "trials": "3"})
    samples = task.samples(TOKENIZER, seed=1, limit=None)
    assert len({sample.id for sample in samples}) == 15
    lengths = set()
    for sample in samples:
        request = sample.request()
        assert isinstance(request, Generate)
        text, question = request.prompt.segments
        assert isinstance(question, str) and not isinstance(text, str)
        name = sample.id.partition("/")[2]
        needle = f"The key of {name} is {sample.reference}.\n"
        before = TOKENIZER.decode(text.tolist()[: len(text) - int(sample.details["distance"])])
        assert before.endswith(needle)
        assert question.endswith(f"The key of {name} is")
        lengths.add(len(text) + len(TOKENIZER.encode(question)) + ANSWER_TOKENS)
    assert max(lengths) == 700


def test_the_same_seed_gives_the_same_samples() -> None:
    task = MultiNeedle.from_options({})
    keys = [[sample.reference for sample in task.samples(TOKENIZER, seed, limit=9)] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


def test_the_first_number_decides() -> None:
    (sample,) = MultiNeedle.from_options({}).samples(TOKENIZER, seed=0, limit=1)
    for text, accuracy in ((f" {sample.reference}. 1", 1.0), (f"1 {sample.reference}", 0.0), ("", 0.0)):
        assert sample.score(Generated(text, ())) == {"accuracy": accuracy}


def test_what_does_not_fit_is_refused() -> None:
    for options, words in (
        ({"length": "99"}, "too short"),
        ({"keys": "13"}, "at most 12"),
        ({"keys": "0"}, "at least"),
    ):
        with pytest.raises(UserError, match=words):
            MultiNeedle.from_options(options).samples(TOKENIZER, seed=0, limit=None)
    with pytest.raises(ValueError, match="a whole number"):
        whole_number("-1")
