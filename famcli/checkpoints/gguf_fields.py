"""The metadata of a GGUF file by name: what is applied, what changes nothing. Any other is refused.

Under ``general.``, and under the names that programs keep for themselves, a file tells of where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from famcli.errors import UserError, printable

APPLIED = {
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"),
    *("attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"),
}
"""Under the name of an architecture."""
OF_WINDOWS = {"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"}
"""Of architectures with local layers alone."""
HARMLESS = {
    *("vocab_size", "tensor_data_layout", "attention.layer_norm_epsilon", "pooling_type", "embedding_length_out"),
    *("rope.scaling.finetuned", "rope.scaling.original_context_length"),
    *("expert_used_count", "expert_feed_forward_length", "mm.tokens_per_image"),
}
"""What llama.cpp does not need for text, or for models without experts."""
SETTLED: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "use_parallel_residual": (False,),
    **dict.fromkeys(("expert_count", "expert_shared_count", "leading_dense_block_count", "nextn_predict_layers"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv"), (0.0,)),
    "attention.max_alibi_bias": (0.0,),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale", "rope.scaling.attn_factor"), (0.0, 1.0)),
}
"""Fields of which only these values are what the decoder does."""

_TOKENIZER = {
    *("model", "pre", "tokens", "token_type", "token_type_count", "scores", "merges", "add_bos_token"),
    *("add_space_prefix", "remove_extra_whitespaces"),
    *(f"{kind}_token_id" for kind in ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "separator")),
    *(f"{kind}_token_id" for kind in ("mask", "cls", "prefix", "suffix", "middle")),
    *(f"fim_{kind}_token_id" for kind in ("pre", "suf", "mid", "pad", "rep", "sep")),
}
_TOKENIZER_SETTLED = {"add_eos_token": (False,), "add_sep_token": (False,), "precompiled_charsmap": ([],)}
_TOKENIZER_REST = re.compile(r"tokenizer\.(chat_template(\..+)?|chat_templates|huggingface\.json|rwkv\.world)")


def check_known(names: Iterable[str], get: Callable[[str], Any], architecture: str, windows: bool, file: Path) -> None:
    """Makes sure that nothing the file says of its model or its tokenizer is left unread.

    Args:
        names: all of its fields.
        get: the value of one.
        architecture: ``general.architecture``.
        windows: it is one with local layers.
        file: for errors.

    Raises:
        UserError: names the field.
    """
    known = APPLIED | HARMLESS | (OF_WINDOWS if windows else set())
    for name in names:
        space, _, own = name.partition(".")
        if space == "tokenizer":
            own = name.removeprefix("tokenizer.ggml.")
            listed = own in _TOKENIZER or _TOKENIZER_REST.fullmatch(name) is not None
            allowed: tuple[Any, ...] | None = _TOKENIZER_SETTLED.get(own)
        elif space == architecture:
            listed, allowed = own in known or own.startswith("vision."), SETTLED.get(own)
            if own == "attention.sliding_window" and not windows:  # one that hides nothing
                longest, window = get(f"{architecture}.context_length"), get(name)
                whole = isinstance(longest, int) and isinstance(window, int)
                listed = window == 0 or (whole and window >= longest)
        elif name == "general.type":
            listed, allowed = False, ("model",)
        else:
            continue
        if allowed is not None and get(name) in allowed:
            continue
        if allowed is not None:
            raise UserError(f"{file}: field '{name}' is {printable(str(get(name)))}; famcli reads models without it")
        if not listed:
            raise UserError(
                f"{file}: field '{printable(name)}' is none that famcli knows, and may change what the model computes",
                "give the model's Hugging Face directory instead",
            )
