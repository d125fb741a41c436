"""The tokenizer in the metadata of a GGUF file, rebuilt for the library ``tokenizers``.

A file holds the vocabulary, the merges and the names of what else there is; how a text is cut into words first, and
what stands for a space, belongs to the name and is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.errors import UserError, printable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = _WORDS.format(digits="{1,3}"), _WORDS.format(digits="")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORD_PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "olmo"), (_GPT2,)),
    "smollm": (r"\p{N}", _GPT2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), (_QWEN2,)),
    "tekken": (_TEKKEN,),
}
"""By ``tokenizer.ggml.pre``, the patterns that cut a text into words, one after the other."""
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "tekken")
"""Where a word that is in the vocabulary is one token, whatever the merges say."""
_BEGIN = ("llama-bpe", "llama3", "llama-v3", "tekken")
"""Where a text begins with its special token unless the file says otherwise."""
_COMPOSED = ("qwen2", "deepseek-r1-qwen")
"""Where letters with marks are composed first (NFC)."""
_KINDS = ("gpt2", "llama")
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_DEFAULT_IDS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}}
"""By ``tokenizer.ggml.model``, where a file does not say them. Those llama.cpp has for BPE are of GPT-2 alone."""
_ENDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_END_TEXTS = {
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>"),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
    *("<REPO>", "<reponame>", "<|file_sep|>"),
}
"""Tokens that end an answer in llama.cpp by their text alone, whether the file names their ids or not."""
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_SPACE = "\u2581"


def read_tokenizer(fields: Mapping[str, Any], architecture: str, file: Path) -> HubTokenizer:
    """Rebuilds the tokenizer.

    Args:
        fields: the metadata under ``tokenizer.``, e.g. ``ggml.model``, ``chat_template``.
        architecture: ``general.architecture``.
        file: where they are from, for errors.

    Raises:
        UserError: they are not complete, or of a kind that is not known here.
    """
    kind = fields.get("ggml.model")
    if kind not in _KINDS:
        raise UserError(
            f"{file}: field 'tokenizer.ggml.model' is '{printable(str(kind))}'; famcli reads {' or '.join(_KINDS)}",
            "give the model's Hugging Face directory instead",
        )
    _check_lists(fields, file)
    _check_switches(fields, file)
    tokens = list(_required(fields, "ggml.tokens", file))
    types = list(fields.get("ggml.token_type") or [0] * len(tokens))
    size = len(tokens)
    if all(kind == _UNUSED for kind in types):
        raise UserError(f"{file}: field 'tokenizer.ggml.token_type' says of every token that it is not used")
    while types and types[-1] == _UNUSED:  # rows of the embedding that stand for nothing
        types.pop()
    del tokens[len(types) :]
    if kind == "gpt2":
        tokenizer = _byte_level(fields, tokens, file)
    else:
        tokenizer = _sentencepiece(fields, tokens, architecture.startswith("gemma"), file)
    _add_tokens(tokenizer, tokens, types)
    named = _named_tokens(fields, kind, size)
    names = {name: named[key] for name, key in _SPECIAL.items()}
    begins = kind == "llama" or fields.get("ggml.pre") in _BEGIN
    special = {name: tokens[index] for name, index in names.items() if index is not None and index < len(tokens)}
    if fields.get("ggml.add_bos_token", begins):
        if "bos_token" not in special:
            raise UserError(
                f"{file}: a text begins with the token 'tokenizer.ggml.bos_token_id', which the file does not name",
                "give the model's Hugging Face directory instead",
            )
        _begin_with(tokenizer, special["bos_token"])
    settings = {**special, "chat_template": fields.get("chat_template")}
    ids = {"bos_token_id": names["bos_token"], "eos_token_id": _ends(named, tokens)}
    return HubTokenizer(tokenizer.to_str(), ids, settings, str(file))


def _check_lists(fields: Mapping[str, Any], file: Path) -> None:
    """Makes sure that the lists of a vocabulary are of their types, and of one length."""
    tokens = _required(fields, "ggml.tokens", file)
    size = len(tokens) if isinstance(tokens, list) else 0
    for name, kind in (("tokens", str), ("merges", str), ("token_type", int), ("scores", float)):
        values = fields.get(f"ggml.{name}")
        if values is None:
            continue
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise UserError(f"{file}: field 'tokenizer.ggml.{name}' must be a list of type {kind.__name__}")
        if name != "merges" and len(values) != size:
            raise UserError(
                f"{file}: field 'tokenizer.ggml.{name}' has {len(values)} entries, and 'tokenizer.ggml.tokens' {size}"
            )


def _check_switches(fields: Mapping[str, Any], file: Path) -> None:
    for name in ("add_bos_token", "add_space_prefix", "remove_extra_whitespaces"):
        value = fields.get(f"ggml.{name}")
        if value is not None and not isinstance(value, bool):
            shown = printable(str(value))
            raise UserError(f"{file}: field 'tokenizer.ggml.{name}' must be true or false, not {shown}")


def _named_tokens(fields: Mapping[str, Any], kind: str, size: int) -> dict[str, int | None]:
    """The ids of special tokens by their keys; one that is no token counts as not named, as in llama.cpp."""
    named: dict[str, int | None] = {}
    for key in {*_SPECIAL.values(), *_ENDS}:
        index = fields.get(f"ggml.{key}_token_id")
        there = isinstance(index, int) and 0 <= index < size
        named[key] = index if there else _DEFAULT_IDS.get(kind, {}).get(key)
    return named


def _ends(named: Mapping[str, int | None], tokens: Sequence[str]) -> list[int]:
    """The tokens at which llama.cpp ends an answer, the end of a text first."""
    ends = [index for key in _ENDS if (index := named[key]) is not None]
    ends += [index for index, token in enumerate(tokens) if token in _END_TEXTS]
    texts = {tokens[index] for index in ends if index < len(tokens)}
    kept = set[str]()
    if {"<|return|>", "<|call|>"} <= texts or ("<|flush|>" in texts and {"<|call|>", "<|calls|>"} & texts):
        kept.add("<|end|>")  # there it closes a part of an answer
    if "<|tool_response>" in texts:
        kept.add("</s>")  # there it is text
    return [index for index in dict.fromkeys(ends) if index >= len(tokens) or tokens[index] not in kept]


def _byte_level(fields: Mapping[str, Any], tokens: Sequence[str], file: Path) -> Tokenizer:
    """Byte-level BPE, as of GPT-2."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pre = fields.get("ggml.pre")
    if not isinstance(pre, str) or pre not in WORD_PATTERNS:
        shown = printable(str(pre))
        raise UserError(
            f"{file}: field 'tokenizer.ggml.pre' is '{shown}'; how such a tokenizer cuts words is not known here",
            f"famcli reads {', '.join(WORD_PATTERNS)}; or give the model's Hugging Face directory",
        )
    merges = [_pair(merge) for merge in _required(fields, "ggml.merges", file)]
    try:
        tokenizer = Tokenizer(models.BPE(_vocabulary(tokens), merges, ignore_merges=pre in _WHOLE_WORDS))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{file}: the fields 'tokenizer.ggml.*' are no tokenizer: {error}") from error
    if pre in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in WORD_PATTERNS[pre]]
    bytes_as_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_as_letters])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(fields: Mapping[str, Any], tokens: list[str], gemma: bool, file: Path) -> Tokenizer:
    """SentencePiece's BPE, with bytes for what is not in the vocabulary, as of Llama 2 and Gemma.

    A file of the kind holds no merges: any two tokens that make a third are one, the better the third's score, the
    earlier. Gemma's files spell runs of spaces as spaces, and give them scores of no meaning; there the order of the
    tokens counts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    if fields.get("ggml.remove_extra_whitespaces"):
        raise UserError(f"{file}: field 'tokenizer.ggml.remove_extra_whitespaces' is true; famcli reads false")
    scores = [0.0] * len(tokens) if gemma else _required(fields, "ggml.scores", file)
    if gemma:
        tokens[:] = [_SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    vocabulary = _vocabulary(tokens)
    ranked = sorted(range(len(tokens)), key=lambda index: (-scores[index], index))
    merges = [
        (tokens[index][:cut], tokens[index][cut:])
        for index in ranked
        for cut in range(1, len(tokens[index]))
        if tokens[index][:cut] in vocabulary and tokens[index][cut:] in vocabulary
    ]
    unknown = tokens[_named_tokens(fields, "llama", len(tokens))["unknown"] or 0]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps: list[Any] = [normalizers.Replace(" ", _SPACE)]
    back: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if fields.get("ggml.add_space_prefix", not gemma):
        steps.insert(0, normalizers.Prepend(_SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer, tokenizer.decoder = normalizers.Sequence(steps), decoders.Sequence(back)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Tokens that are never cut; control tokens are no text when they are decoded."""
    from tokenizers import AddedToken

    pairs = list(zip(tokens, types, strict=True))
    control = [AddedToken(token, normalized=False, special=True) for token, kind in pairs if kind == _CONTROL]
    whole = [token for token, kind in pairs if kind == _USER_DEFINED and token.strip(_SPACE)]
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in whole])


def _begin_with(tokenizer: Tokenizer, token: str) -> None:
    """Puts ``token`` before every text that is encoded with its special tokens."""
    from tokenizers.processors import TemplateProcessing

    index = tokenizer.token_to_id(token)
    tokenizer.post_processor = TemplateProcessing(single=[token, "$A"], pair=None, special_tokens=[(token, index)])


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    """Token to id; of tokens spelled alike the first."""
    return {token: index for index, token in reversed(list(enumerate(tokens)))}


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _required(fields: Mapping[str, Any], name: str, file: Path) -> Any:
    if not fields.get(name):
        raise UserError(f"{file} lacks the field 'tokenizer.{name}'")
    return fields[name]
