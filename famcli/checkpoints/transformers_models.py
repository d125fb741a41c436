"""``--model hf:DIR_OR_ID[,FIELD=VALUE...]``: any causal language model of ``transformers``, read with its own code.

Only safetensors are read, only code of the installed ``transformers`` is run, and the network is not asked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.huggingface import complete_directory, is_hub_id, token_fields
from famcli.checkpoints.sources import LoadedModel, PluginSource
from famcli.errors import UserError, printable, unknown_name
from famcli.fields import parse_value, read_json
from famcli.files import user_path

if TYPE_CHECKING:
    import torch

    from famcli.models.transformers_stream import Facts

logger = getLogger(__name__)

INSTALL = "pip install 'famcli[hf]'"
KERNEL = "attn_implementation"
_KERNELS = ("eager", "sdpa", "flash_attention_2")
_NO_FIELDS = {
    *("architectures", "chunk_size_feed_forward", "dtype", "is_encoder_decoder", "model_type", "output_attentions"),
    *("output_hidden_states", "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache"),
}
"""Of a config: what says nothing of the answers, or is not for the user to say here."""
_OURS = ("attention", "block_size", "memory_segments", "sinks", "fam_length")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
"""What families call the longest text that they were made for."""


@dataclass(frozen=True)
class TransformersSource(PluginSource):
    """A ``PluginSource`` whose weights are hashed when they are read.

    Attributes:
        files: of the weights.
    """

    files: tuple[Path, ...] = ()

    def load(self, device: torch.device, dtype: torch.dtype, device_map: bool = False) -> LoadedModel:
        """See ``PluginSource.load``."""
        from famcli.checkpoints.weights import combined_sha256

        with ThreadPoolExecutor(1) as beside:
            hashing = beside.submit(combined_sha256, set(self.files))
            loaded = super().load(device, dtype, device_map)
            return dataclasses.replace(loaded, weights_sha256=hashing.result())


def find(argument: str, fields: Mapping[str, str]) -> PluginSource:
    """hf:DIR_OR_ID[,FIELD=VALUE...]: any causal model of transformers, with its own cache; see docs/models.md

    Raises:
        UserError: there is no such model, ``transformers`` is missing or does not know it, or a field does not fit.
    """
    name = f"hf:{argument}"
    directory = _directory(argument)
    config_file = directory / "config.json"
    values = read_json(config_file, hint="hf: takes a directory with config.json and safetensors", nan=True)
    if values.get("format") == "famcli":
        raise UserError(f"{directory} is a model of famcli's own format", f"leave out hf: --model {argument}")
    if (directory / "adapter_config.json").exists():
        raise UserError(
            f"{directory} holds an adapter, and hf: reads none", "merge it first, or give the base's directory"
        )
    with _transformers(name):
        config, kernel = _config(directory, config_file, values, fields)
    from famcli.checkpoints.opening import weight_files
    from famcli.checkpoints.weights import list_safetensors

    files = tuple(weight_files(directory, own=False))
    stored = [tensor for file in files for tensor in list_safetensors(file)]
    if not stored:
        raise UserError(f"{files[0]} holds no tensors")
    facts = _facts(config, kernel)
    return TransformersSource(
        tokenizer=HubTokenizer.from_file(directory / "tokenizer.json", token_fields(values)),
        build=lambda device, dtype: _build(directory, config, kernel, facts, device, dtype),
        weights_sha256="",
        longest_text=facts.longest_text,
        half_precision=stored[0].dtype not in ("F32", "F64"),
        files=files,
    )


def _directory(argument: str) -> Path:
    """The directory of a path, or of a hub id in the local cache."""
    if not argument:
        raise UserError("hf: names no model", "for example: --model hf:./my-model")
    path = user_path(argument)
    if path.is_dir():
        return path
    if path.exists() or argument.endswith(".gguf"):
        raise UserError(f"hf:{argument} is no directory", "give its directory, or leave out hf:")
    if is_hub_id(argument):
        if cached := complete_directory(argument):
            return cached
        raise UserError(
            f"no directory '{argument}', and no model of that name in the local hub cache",
            f"if it is a model on the hub, get it with: hf download {argument}",
        )
    raise UserError(f"no directory '{printable(argument)}'", "hf: takes a directory or a hub id")


@contextmanager
def _transformers(name: str) -> Iterator[None]:
    """Says of what ``transformers`` raises, or that it is not there; it reports no progress of its own meanwhile."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(f"model '{name}' needs transformers, which is not installed", INSTALL) from error
    theirs: Any = logging  # it has no types
    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of every kind: a family may want a package, or a field of the config
        reason = printable(" ".join(str(error).split()), 300)
        raise UserError(
            f"model '{name}': transformers cannot read it: {type(error).__name__}: {reason}",
            "python -c 'import transformers; print(transformers.__version__)' says which version is here",
        ) from error
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def _config(
    directory: Path, file: Path, values: Mapping[str, Any], fields: Mapping[str, str]
) -> tuple[Any, str | None]:
    """The config with the fields that were typed, and the kernel of attention where one was."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in KNOWN:
        own = " and names code of its own, which famcli never runs" if values.get("auto_map") else ""
        raise UserError(
            f"{file}: field 'model_type' is '{printable(str(kind))}'{own}: no causal language model of the "
            "transformers that is installed",
            "a newer transformers may have it: pip install --upgrade transformers",
        )
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    kernel = fields.get(KERNEL)
    if kernel is not None and kernel not in _KERNELS:
        raise UserError(f"hf: field '{KERNEL}' must be one of {', '.join(_KERNELS)}, not '{printable(kernel)}'")
    text = config.get_text_config()
    known = {name: value for name, value in text.to_dict().items() if _may_be_set(name, value)}
    for name, typed in fields.items():
        if name == KERNEL:
            continue
        if name not in known:
            raise _unknown_field(name, directory, known)
        kept = known[name]
        kind_of = str | int | float | None if kept is None else type(kept)
        setattr(text, name, parse_value(typed, kind_of, name, f"model 'hf:{directory}'", text=True))
    return config, kernel


def _may_be_set(name: str, value: Any) -> bool:
    plain = isinstance(value, bool | int | float | str | None)
    return plain and name not in _NO_FIELDS and not name.startswith("_") and not name.endswith("_token_id")


def _unknown_field(name: str, directory: Path, known: Mapping[str, Any]) -> UserError:
    if name in _OURS:
        return UserError(
            f"hf: has no field '{name}': transformers reads with the model's own attention",
            f"famcli's memories are for its own decoder: --model {directory},{name}=...",
        )
    if name == "adapter":
        return UserError("hf: takes no adapter", f"famcli's own decoder merges one: --model {directory},adapter=DIR")
    return unknown_name("field of hf:", name, [*known, KERNEL])


def _facts(config: Any, kernel: str | None) -> Facts:
    """What is said of a model, and what of it beside the weights determines the answers."""
    import transformers

    from famcli.models.transformers_stream import Facts

    text = config.get_text_config()
    bounds = (getattr(text, name, None) for name in _CONTEXT)
    longest = next((bound for bound in bounds if isinstance(bound, int) and bound > 0), None)
    said = {name: value for name, value in config.to_diff_dict().items() if name not in _NO_FIELDS - {"model_type"}}
    public = {name: value for name, value in said.items() if not name.startswith("_")}
    plain = json.loads(json.dumps(public, default=str), parse_constant=str)  # infinity is no JSON
    identity = {"transformers": transformers.__version__, "config": plain}
    if kernel:
        identity[KERNEL] = kernel
    return Facts(text.vocab_size, longest, identity, identity)


def _build(
    directory: Path, config: Any, kernel: str | None, facts: Facts, device: torch.device, dtype: torch.dtype
) -> Any:
    from famcli.models.transformers_stream import TransformersStream

    with _transformers(f"hf:{directory}"):
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        model, found = auto.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told of below
            **({KERNEL: kernel} if kernel else {}),
        )
        _check_whole(directory, found)
        return TransformersStream(model.to(device), facts)


def _check_whole(directory: Path, found: Mapping[str, Any]) -> None:
    """Weights that a checkpoint lacks are drawn by chance: no score of such a model would say anything."""
    problems = {
        "missing_keys": "lacks the tensor",
        "mismatched_keys": "has, by its config, another shape of the tensor",
    }
    for problem, words in problems.items():
        if names := sorted(str(key if isinstance(key, str) else key[0]) for key in found.get(problem) or ()):
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise UserError(
                f"{directory} {words} '{printable(names[0])}'{more}",
                "get the weights again, or leave out fields that change shapes",
            )
    if names := sorted(map(str, found.get("unexpected_keys") or ())):
        logger.warning(
            "warning: %s: %d tensors are no part of the model and are not read, for instance '%s'",
            *(directory, len(names), printable(names[0])),
        )
