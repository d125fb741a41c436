"""A ``tokenizer.json`` and what stands beside it: special tokens, and the template of a chat."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from famcli.checkpoints.chat import ChatTemplate
from famcli.content import encodable
from famcli.errors import UserError, printable
from famcli.fields import read_json
from famcli.files import write_text
from famcli.inputs import read_text

_MOST_TOKENS = 1 << 31
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class HubTokenizer:
    """A ``tokenizer.json`` as a ``Tokenizer``.

    Attributes:
        definition: the content of ``tokenizer.json``.
    """

    seams = True

    def __init__(
        self, definition: str, fields: Mapping[str, Any], settings: Mapping[str, Any] | None = None, where: str = "it"
    ) -> None:
        """Builds the tokenizer.

        Args:
            definition: the content of a ``tokenizer.json``.
            fields: of ``config.json``, which says what begins and ends a text (``bos_token_id``, ``eos_token_id``).
            settings: of ``tokenizer_config.json``: ``chat_template``, and the names of special tokens, of which
                ``bos_token`` and ``eos_token`` begin and end a text as well.
            where: what an error names as the place.

        Raises:
            UserError: it is no tokenizer.
        """
        import tokenizers

        self.definition, self._where = definition, where
        with self._told("is not a tokenizer"):
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
            # What a file says of them is for batches; transformers does not heed it either.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        self.name = f"hub-{hashlib.sha256(definition.encode()).hexdigest()[:16]}"
        # Ids may have gaps: what counts is the highest.
        self.vocab_size: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        settings = settings or {}
        self._special = {name: text for name in _SPECIAL if (text := _text(settings, name, where)) is not None}
        begin, ends = (self._stated(fields, name) for name in ("bos_token", "eos_token"))
        self._stated_ends = frozenset(ends)
        self.end_of_text = ends[0] if ends else None
        self._begin = begin[0] if begin else None
        self.text_start = self._begin if begin else self.end_of_text
        for name, ids in (("bos_token", begin), ("eos_token", ends)):
            if name not in self._special and ids and (text := self._tokenizer.id_to_token(ids[0])) is not None:
                self._special[name] = text
        self.prompt_start = self._prompt_start()
        template = _template(settings.get("chat_template"), where)
        self.chat_template = None if template is None else ChatTemplate(template, self._special)

    @classmethod
    def from_file(cls, file: Path, fields: Mapping[str, Any]) -> HubTokenizer:
        """Reads a ``tokenizer.json``, and beside it ``tokenizer_config.json``, ``special_tokens_map.json``,
        ``generation_config.json`` and ``chat_template.jinja`` where they are; ``fields`` are those of ``config.json``.

        Raises:
            UserError: the file is missing, or one of them cannot be read.
        """
        try:
            definition = read_text(file)
        except UserError as error:
            hint = error.hint or "famcli reads tokenizers saved as tokenizer.json"
            raise UserError(f"the tokenizer cannot be had: {error.message}", hint) from error
        settings = {**_beside(file, "special_tokens_map.json"), **_beside(file, "tokenizer_config.json")}
        template = file.with_name("chat_template.jinja")
        if os.path.lexists(template):
            settings = {**settings, "chat_template": read_text(template)}
        generation = "generation_config.json"
        ends = [
            *_token_ids(fields, "eos_token_id", str(file.with_name("config.json"))),
            *_token_ids(_beside(file, generation), "eos_token_id", str(file.with_name(generation))),
        ]
        begins = _token_ids(fields, "bos_token_id", str(file.with_name("config.json")))
        fields = {**fields, "bos_token_id": begins, "eos_token_id": list(dict.fromkeys(ends))}
        return cls(definition, fields, settings, str(file))

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes the files that ``from_file`` reads; returns what must stand in ``config.json``."""
        write_text(directory / "tokenizer.json", self.definition)
        settings: dict[str, Any] = dict(self._special)
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template.source
        if settings:
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            write_text(directory / "tokenizer_config.json", text + "\n")
        ends = [end for end in (self.end_of_text,) if end is not None]
        return {"bos_token_id": self._begin, "eos_token_id": [*ends, *sorted(self.answer_ends - set(ends))]}

    def encode(self, text: str) -> list[int]:
        with self._told("cannot cut a text"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        with self._told("cannot spell tokens"):
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """``tokenizers`` raises bare ``Exception``, and where its own code fails what is no ``Exception`` at all."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise UserError(f"{self._where} {what}: {printable(str(error))}") from error
            raise

    @cached_property
    def answer_ends(self) -> frozenset[int]:
        """What any of the files calls an end, and what the chat template writes after an answer.

        The template is rendered when a model is first asked, not when it is found: it may be slow or broken.
        """
        return self._stated_ends | self._turn_end()

    def _stated(self, fields: Mapping[str, Any], name: str) -> list[int]:
        """The ids of ``bos_token`` or ``eos_token``, those of ``config.json`` first."""
        ids = _token_ids(fields, f"{name}_id", self._where)
        named = self._tokenizer.token_to_id(self._special[name]) if name in self._special else None
        return ids if named is None or named in ids else [*ids, named]

    def _turn_end(self) -> frozenset[int]:
        """The first special token between an answer and the next turn: models trained on the template write it."""
        between = self.chat_template.after_answer() if self.chat_template else None
        if between is None:
            return frozenset()
        whole = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.content.strip()}
        return frozenset([i for i in self.encode(between) if i in whole][:1])

    def _prompt_start(self) -> tuple[int, ...]:
        """What ``tokenizer.json`` puts before a text, whatever ``tokenizer_config.json`` says: so does transformers."""
        plain = self.encode("a")
        with self._told("cannot cut a text"):
            whole: list[int] = self._tokenizer.encode("a", add_special_tokens=True).ids
        places = (i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain)
        return tuple(whole[: next(places, 0)])


def _token_ids(fields: Mapping[str, Any], name: str, where: str) -> list[int]:
    """A special token of ``config.json``, which may be several, or none."""
    value = fields.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for token in values:
        if type(token) is not int or not 0 <= token < _MOST_TOKENS:
            raise UserError(
                f"{where}: field '{name}' must be the number of a token, or a list of them, not {_shown(value)}"
            )
    return values


def _text(settings: Mapping[str, Any], name: str, where: str) -> str | None:
    """A special token of ``tokenizer_config.json``, by itself or with its properties."""
    value = settings.get(name)
    if isinstance(value, Mapping):
        value = value.get("content", 0)
    if value is not None and not (isinstance(value, str) and encodable(value)):
        raise _wrong(name, "text", value, where)
    return value


def _template(value: Any, where: str) -> str | None:
    """``chat_template``; of several by name the one for plain chats."""
    if isinstance(value, list):
        if not all(isinstance(entry, Mapping) and isinstance(entry.get("name"), str) for entry in value):
            raise _wrong("chat_template", "text, or a list of templates with their names", value, where)
        value = next((entry.get("template") for entry in value if entry["name"] == "default"), None)
    if value is not None and not (isinstance(value, str) and encodable(value)):
        raise _wrong("chat_template", "text, or a list of templates with their names", value, where)
    return value


def _wrong(name: str, must: str, value: Any, where: str) -> UserError:
    """``where`` is the tokenizer; what stands beside it has the names of special tokens."""
    place = f"beside {where}, in tokenizer_config.json or special_tokens_map.json" if where.endswith(".json") else where
    return UserError(f"{place}: field '{name}' must be {must}, not {_shown(value)}")


def _shown(value: Any) -> str:
    return printable(reprlib.repr(value))


def _beside(file: Path, name: str) -> dict[str, Any]:
    """A JSON file beside the tokenizer, empty where there is none."""
    other = file.with_name(name)
    return read_json(other, nan=True) if os.path.lexists(other) else {}
