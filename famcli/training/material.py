"""What sources are drawn from: the words of PassKey, plain text, documents with questions."""

from __future__ import annotations

import hashlib
import string
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np

from famcli.checkpoints.tokenizer import Tokenizer
from famcli.errors import UserError
from famcli.fields import from_json, read_fields
from famcli.inputs import read_text
from famcli.task import load_task
from famcli.training.facts import draw_fact, draw_filler
from famcli.training.recipe import KeyPlaces, Kind, Phase, Recipe
from famcli.training.sources import (
    Documents,
    DocumentsFrom,
    Filler,
    Ids,
    KeyInFiller,
    PlainText,
    Question,
    SegmentsOfText,
    Source,
)

REPEAT_SEGMENT = "\n[repeat random segment]: "
"""The words of the paper (section 3.1)."""

KEY_TASK, DOCUMENT_TASK = "passkey", "narrativeqa"
"""The tasks whose words are trained on. They are found as plugins: whoever installs others under these names trains on
theirs."""


class Material:
    """Draws the sources of a recipe.

    Args:
        tokenizer: of the model.
        corpus: [n] ids of plain text, where the mixture wants some.
        documents: with their questions, where the mixture wants some.
    """

    def __init__(self, tokenizer: Tokenizer, corpus: Ids | None = None, documents: Documents | None = None) -> None:
        self.tokenizer, self.corpus, self.documents = tokenizer, corpus, documents
        self.passkeys = PasskeySources(tokenizer)
        self.cue = _encode(tokenizer, REPEAT_SEGMENT)

    def digest(self) -> str:
        """The hash of all ids that sources are drawn from."""
        parts = [] if self.corpus is None else [self.corpus]
        if self.documents is not None:
            parts += [self.documents.ids, *(ids for some in self.documents.questions for pair in some for ids in pair)]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def draw(self, kind: Kind, rng: np.random.Generator, phase: Phase, recipe: Recipe) -> Source:
        """A new source of ``kind``, decided by ``rng`` alone."""
        if kind == "repeat":
            return draw_repeat(rng, self.tokenizer)
        if kind == "qa":
            assert self.documents is not None
            return DocumentsFrom(self.documents, int(rng.integers(0, len(self.documents.starts))))
        text, places = None, (phase.key_places, phase.block_size, recipe.longest_wait)
        if kind == "fact" and rng.integers(0, 2):
            return self.passkeys.draw_fact(rng, *places, None)
        if kind != "passkey":
            assert self.corpus is not None
            text = PlainText(self.corpus, int(rng.integers(0, len(self.corpus))))
            if kind == "text":
                return text
            if kind == "repeat_segment":
                return SegmentsOfText(text, self.cue, recipe.segment_length)
            if kind == "fact":
                return self.passkeys.draw_fact(rng, *places, text)
        return self.passkeys.draw(rng, *places, text, few_digits=phase.few_digits, told_once=phase.told_once)


class PasskeySources:
    """Draws ``KeyInFiller`` sources in the words of the PassKey task, and of facts in others."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        description, filler, self._key_line, question = words_of(
            KEY_TASK, "description", "filler", "key_line", "question"
        )
        self._head, self._question = self._encode(description + "\n"), self._encode("\n" + question)
        self._unit = self._encode(filler + " ")

    def _encode(self, text: str) -> Ids:
        return _encode(self._tokenizer, text)

    def draw(
        self,
        rng: np.random.Generator,
        places: KeyPlaces,
        block_size: int,
        longest_wait: int,
        text: PlainText | None,
        *,
        few_digits: float = 0.0,
        told_once: float = 0.0,
    ) -> KeyInFiller:
        """A source with a random key; a quarter of them has the description; without it the key line can come early.

        Args:
            rng: what decides everything.
            places: shares of the keys by where they stand.
            block_size: ``B`` in tokens.
            longest_wait: most blocks before a key that comes later.
            text: filler to use in place of the classic one.
            few_digits: see ``Phase``.
            told_once: see ``Phase``.
        """
        digits = rng.integers(0, 10, 5)
        if few_digits and rng.random() < few_digits:
            digits = rng.permutation(10)[digits % rng.integers(2, 4)]
        key = "".join(map(str, digits))
        line = self._draw_line(rng, told_once).format(key=key)
        wait = self._draw_wait(rng, places, block_size, longest_wait, line, key)
        filler = text or Filler(np.roll(self._unit, int(rng.integers(0, len(self._unit)))))
        head = self._head[: 0 if rng.integers(0, 4) else None]
        return self._tell(head, wait, filler, line, self._question, key)

    def _draw_line(self, rng: np.random.Generator, told_once: float) -> str:
        """A key line to be filled in: as the task has it, or one of the two sentences in it that tell the key."""
        if not told_once or rng.random() >= told_once:
            return self._key_line
        tells = [sentence for sentence in self._key_line.split(". ") if "{key}" in sentence]
        return tells[int(rng.integers(len(tells)))].removesuffix(".") + "."

    def draw_fact(
        self, rng: np.random.Generator, places: KeyPlaces, block_size: int, longest_wait: int, text: PlainText | None
    ) -> KeyInFiller:
        """A source with a random fact, see ``draw``; without ``text`` in random sentences."""
        fact = draw_fact(rng)
        wait = self._draw_wait(rng, places, block_size, longest_wait, fact.line, fact.answer)
        filler = text or Filler(self._encode(draw_filler(rng)))
        head = self._head[: 0 if rng.integers(0, 4) else None]
        return self._tell(head, wait, filler, fact.line, self._encode("\n" + fact.question), fact.answer)

    def _draw_wait(
        self, rng: np.random.Generator, places: KeyPlaces, block_size: int, longest_wait: int, line: str, key: str
    ) -> int:
        """Tokens of filler before a line that tells a key."""
        shares = np.array(astuple(places))
        early, soon = rng.integers(0, 5 * block_size // 4), rng.integers(block_size // 2, 3 * block_size)
        later = rng.integers(0, block_size * longest_wait)
        place = int(rng.choice(len(shares), p=shares / shares.sum()))
        if place < 4:
            return int((0, early, soon, later)[place])
        # drawn last, so that a recipe without them draws what it ever did
        fewest, most = (1, len(self._encode(line)) - 1) if place == 4 else self._between(line, key)
        return max(1, block_size - 1 - int(rng.integers(fewest, most + 1)))

    def _between(self, line: str, key: str) -> tuple[int, int]:
        """Fewest and most tokens of a line that end after it tells its key and before it tells it again, if it does."""
        told, again = line.index(key) + len(key), line.rindex(key)
        return len(self._encode(line[:told])), len(self._encode(line[: again if again > told else len(line)]))

    def _tell(
        self, head: Ids, wait: int, filler: Filler | PlainText, line: str, question: Ids, answer: str
    ) -> KeyInFiller:
        told, before = self._encode(line + "\n"), self._encode("\n" if wait else "")
        key_at = len(head) + wait
        told_from = key_at + len(before) + len(self._encode(line[: line.rindex(answer)]))
        told = np.concatenate((before, told))
        asked = Question(key_at + len(told), told_from, question, self._encode(f" {answer}\n"))
        return KeyInFiller(head, filler, told, key_at, asked)

    def before_key(self, source: KeyInFiller, rng: np.random.Generator, count: int) -> Ids:
        """What may have been read before a source: [count] tokens of its filler, most often after the description."""
        head = self._head[: None if rng.random() < 0.75 else 0]
        return np.concatenate((head, source.filler.tokens(int(rng.integers(0, len(self._unit))), count)))[:count]


def words_of(task: str, *names: str) -> list[str]:
    """Parts of a task's prompts, see ``Task.training_words``.

    Raises:
        UserError: the task is not installed, or offers no such part.
    """
    words = load_task(task, {}).training_words
    for name in names:
        if name not in words:
            raise UserError(f"task '{task}' says no '{name}' to train on")
    return [words[name] for name in names]


def draw_repeat(rng: np.random.Generator, tokenizer: Tokenizer) -> Filler:
    """A string of 8 to 39 random characters, or 12 to 39 digits, over and over."""
    digits = rng.integers(0, 4) == 0
    alphabet = string.digits if digits else string.printable[:95]
    characters = rng.integers(0, len(alphabet), rng.integers(12 if digits else 8, 40))
    return Filler(_encode(tokenizer, "".join(alphabet[i] for i in characters)))


def read_texts(directory: Path) -> list[str]:
    """All ``.txt`` files of a directory, in order of name.

    Raises:
        UserError: there is none, or one is no UTF-8 text.
    """
    files = sorted(directory.glob("*.txt")) if directory.is_dir() else []
    if not files:
        raise UserError(
            f"no .txt files in {directory}",
            "`make training-text` and `make training-books` prepare what recipes use",
        )
    return [read_text(file) for file in files]


def load_corpus(directory: Path, tokenizer: Tokenizer) -> Ids:
    """All ``.txt`` files of a directory, in order of name, as one row of ids.

    Raises:
        UserError: see ``read_texts``.
    """
    small = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    ids = np.concatenate([_encode(tokenizer, text).astype(small) for text in read_texts(directory)])
    if not len(ids):
        raise UserError(f"the .txt files in {directory} are empty")
    return ids


def load_documents(file: Path, tokenizer: Tokenizer) -> Documents:
    """Documents with questions from a JSONL file of ``{"document", "question", "answer"}``.

    The prompt is that of ``DOCUMENT_TASK``. Lines with the same document are questions about one document.

    Raises:
        UserError: the file cannot be read, a line is not of this form, or the task is not installed.
    """
    template, cue = words_of(DOCUMENT_TASK, "question", "cue")
    asked: dict[str, list[tuple[Ids, Ids]]] = {}
    for document, question, answer in _read_lines(file):
        text = _encode(tokenizer, "\n\n" + template.format(question=question) + "\n" + cue)
        asked.setdefault(document, []).append((text, _encode(tokenizer, f" {answer}\n")))
    if not asked:
        raise UserError(f"{file} has no questions")
    texts, separator = [_encode(tokenizer, document) for document in asked], _encode(tokenizer, "\n\n")
    lengths = np.array([len(text) for text in texts])
    starts = np.cumsum(lengths + len(separator)) - lengths - len(separator)
    ids = np.concatenate([part for text in texts for part in (text, separator)])
    return Documents(ids, starts, starts + lengths, list(asked.values()))


def _read_lines(file: Path) -> list[tuple[str, str, str]]:
    """Document, question and answer of every line that is not empty."""
    lines = read_text(file).split("\n")  # other line ends may be part of a text
    read = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                found = read_fields(_Line, from_json(line), where, others=True)
            except UserError as error:
                raise UserError(error.message, 'a line is {"document": ..., "question": ..., "answer": ...}') from None
            except ValueError as error:
                raise UserError(f"{where} is not valid JSON: {error}") from error
            read.append((found.document, found.question, found.answer))
    return read


@dataclass(frozen=True)
class _Line:
    document: str
    question: str
    answer: str

    def __post_init__(self) -> None:
        for name, text in asdict(self).items():
            if not text.strip():
                raise UserError(f"field '{name}' is empty")


def _encode(tokenizer: Tokenizer, text: str) -> Ids:
    return np.array(tokenizer.encode(text), np.int64)
