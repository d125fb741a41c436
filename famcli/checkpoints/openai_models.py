"""``--model openai:URL,model=NAME``: a model behind an endpoint that speaks the protocol of OpenAI.

The key is taken from the environment, sent to the endpoint and to nobody else, and stands in no record and no message.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.sources import PluginSource
from famcli.checkpoints.spelling import pieces_of
from famcli.checkpoints.tokenizer import ByteTokenizer, Tokenizer
from famcli.errors import UserError, printable
from famcli.fields import read_fields
from famcli.files import user_path
from famcli.models.remote import Likelihoods, Remote, Written

INSTALL = "pip install 'famcli[openai]'"
KEY = "OPENAI_API_KEY"
_HOW = ("concurrency", "timeout", "retries")
_GENERATE = "ask tasks that generate: passkey, narrativeqa, qasper, xlsum"
_MOST_STOPS = 4
"""That an endpoint takes; what else ends an answer is found here."""


@dataclass(frozen=True)
class Fields:
    """What may follow the address.

    Attributes:
        model: the name by which the endpoint knows the model.
        api: ``completions``, or ``chat`` for one that answers in turns.
        tokenizer: a directory with ``tokenizer.json``, for lengths in tokens; without it a token is a byte.
        context: tokens of a prompt with its answer, as ``tokenizer`` counts them; ``None`` where nobody bounds it.
        concurrency: questions at one time.
        timeout: seconds until an answer must be there.
        retries: how often a question is asked again after a failure, a stall or a limit, each time later.
    """

    model: str
    api: Literal["completions", "chat"] = "completions"
    tokenizer: str = ""
    context: int | None = None
    concurrency: int = 4
    timeout: float = 120.0
    retries: int = 5

    def __post_init__(self) -> None:
        for name in ("context", "concurrency"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"field '{name}' must be at least 1, not {value}")
        if self.timeout <= 0 or self.retries < 0:
            raise UserError("field 'timeout' must be above 0, and 'retries' at least 0")


def find(argument: str, fields: Mapping[str, str]) -> PluginSource:
    """openai:URL,model=NAME: a model behind an endpoint that speaks OpenAI's protocol; see docs/models.md

    Raises:
        UserError: the address or a field does not fit, or the client is not installed.
    """
    address = urlsplit(argument)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(
            f"'{printable(argument)}' is no address of an endpoint",
            "for example: --model openai:http://127.0.0.1:8000/v1,model=my-model",
        )
    if address.username or address.password or address.query:
        raise UserError("an address with a key or a password in it would stand in every record", f"put it into {KEY}")
    if "model" not in fields:
        raise UserError("openai: names no model", f"for example: --model openai:{argument},model=my-model")
    said = read_fields(Fields, dict(fields), "model openai:", text=True)
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise UserError("openai: needs the client openai, which is not installed", INSTALL) from error
    tokenizer = _tokenizer(said.tokenizer)
    # How it is asked changes no answer: a run that gave up goes on with more patience.
    typed = (f"{field}={value}" for field, value in fields.items() if field not in _HOW)
    name = ",".join([f"openai:{argument}", *typed])
    where = f"{argument.rstrip('/')} {said.model}"
    return PluginSource(
        tokenizer=tokenizer,
        build=lambda device, dtype: Endpoint(argument, said, tokenizer.vocab_size),
        weights_sha256=hashlib.sha256(f"openai {where}".encode()).hexdigest(),
        longest_text=said.context,
        name=name,
    )


def _tokenizer(directory: str) -> Tokenizer:
    if not directory:
        return ByteTokenizer()
    path = user_path(directory)
    return HubTokenizer.from_file(path if path.is_file() else Path(path, "tokenizer.json"), {})


class Endpoint(Remote):
    """See ``Remote``; every question is one request, asked again where that may help."""

    def __init__(self, url: str, fields: Fields, vocab_size: int) -> None:
        import openai

        super().__init__(f"openai:{url}", vocab_size, fields.context, fields.concurrency)
        self.url, self.fields = url.rstrip("/"), fields
        self._key = os.environ.get(KEY) or "none"
        self._client = openai.OpenAI(
            base_url=self.url, api_key=self._key, timeout=fields.timeout, max_retries=fields.retries
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``StreamModel``: what stands behind a name nobody knows."""
        return {"endpoint": self.url, "model": self.fields.model, "api": self.fields.api}

    @property
    def description(self) -> Mapping[str, Any]:
        """See ``StreamModel``."""
        return {**self.identity, "context": self.fields.context}

    def write(self, prompt: str, max_new_tokens: int, stop: Sequence[str]) -> Written:
        """See ``Remote``."""
        settings: dict[str, Any] = {"model": self.fields.model, "max_tokens": max_new_tokens, "temperature": 0}
        if stop:
            settings["stop"] = list(stop)[:_MOST_STOPS]
        if self.fields.api == "chat":
            turns = [{"role": "user", "content": prompt}]
            found = self._asked(lambda: self._client.chat.completions.create(messages=turns, **settings))  # type: ignore[arg-type]
            choice = self._choice(found)
            return Written(getattr(choice.message, "content", None) or "", choice.finish_reason == "length")
        found = self._asked(lambda: self._client.completions.create(prompt=prompt, **settings))
        choice = self._choice(found)
        return Written(choice.text or "", choice.finish_reason == "length")

    def weigh(self, text: str) -> Likelihoods:
        """See ``Remote``: the endpoint repeats the text with the likelihood of each token."""
        if self.fields.api == "chat":
            raise UserError(
                f"{self.name} is asked in chats (api=chat), which tell no likelihoods of a prompt",
                f"leave out api=chat, or {_GENERATE}",
            )
        found = self._asked(
            lambda: self._client.completions.create(
                model=self.fields.model, prompt=text, max_tokens=1, temperature=0, echo=True, logprobs=1
            ),
            f"where it cannot repeat a prompt with likelihoods (echo with logprobs), {_GENERATE}",
        )
        told = getattr(self._choice(found), "logprobs", None)
        tokens, values = list(getattr(told, "tokens", None) or ()), list(getattr(told, "token_logprobs", None) or ())
        best = list(getattr(told, "top_logprobs", None) or ()) or [None] * len(tokens)
        tokens = tokens[: getattr(getattr(found, "usage", None), "prompt_tokens", None) or len(tokens)]
        pieces = pieces_of(tokens, text)
        if pieces is None and values[:1] == [None]:  # the mark that a model begins every text with
            tokens, values, best = tokens[1:], values[1:], best[1:]
            pieces = pieces_of(tokens, text)
        if pieces is None or len(values) < len(pieces) or None in values[1 : len(pieces)]:
            raise UserError(
                f"{self.name} does not tell how likely the tokens of a prompt are (echo with logprobs)",
                _GENERATE,
            )
        hits = [_is_best(value, top) for value, top in zip(values, best, strict=False)]
        count = len(pieces)
        return Likelihoods(tuple(pieces), tuple(values[:count]), tuple(hits[:count]))

    def _asked(self, ask: Callable[[], Any], refused: str | None = None) -> Any:
        """What the endpoint answers; ``refused`` is the hint where it says no.

        Raises:
            UserError: it does not, however often it is asked.
        """
        import openai

        again = "repeat the command when it answers again: it continues the run"
        try:
            return ask()
        except openai.AuthenticationError as error:
            raise UserError(f"{self.name} refuses the key: {self._reason(error)}", f"export {KEY}=...") from None
        except openai.APITimeoutError:
            hint = f"{again}; timeout={2 * self.fields.timeout:g} waits longer"
            raise UserError(f"{self.name} gave no answer within {self.fields.timeout:g} seconds", hint) from None
        except openai.APIConnectionError as error:
            raise UserError(f"{self.name} cannot be reached: {self._reason(error.__cause__ or error)}", again) from None
        except openai.RateLimitError as error:
            hint = f"{again}; concurrency=1 asks less at a time"
            raise UserError(f"{self.name} takes no more questions now: {self._reason(error)}", hint) from None
        except openai.InternalServerError as error:
            raise UserError(f"{self.name} fails: {self._reason(error)}", again) from None
        except openai.OpenAIError as error:
            raise UserError(f"{self.name} refuses: {self._reason(error)}", refused) from None
        except ValueError as error:  # no JSON
            raise UserError(f"{self.name} gives what is no answer: {self._reason(error)}", again) from None

    def _choice(self, found: Any) -> Any:
        choices = getattr(found, "choices", None)
        if not choices:
            raise UserError(f"{self.name} gives an answer without 'choices'", "is the address the right one?")
        return choices[0]

    def _reason(self, error: object) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return printable(text.replace(self._key, "***") if self._key != "none" else text, 300)


def _is_best(value: float | None, top: Any) -> bool:
    """Whether a token is the most likely one, by the most likely ones that were told with it."""
    known = [other for other in (top or {}).values() if isinstance(other, int | float)]
    return value is not None and bool(known) and value >= max(known)
