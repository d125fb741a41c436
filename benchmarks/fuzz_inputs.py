"""Small right inputs of every kind, which ``fuzz.py`` spoils: checkpoints, data, recipes, runs, baselines."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHAPE = {"vocab_size": 257, "width": 8, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 4, "ffn_width": 8}
MEMORY = {"attention": "fam", "block_size": 64, "memory_segments": 0, "fam_length": 2}
RECIPE: dict[str, Any] = {
    "seed": 1,
    "optimizer": {"warmup": 0},
    "phases": [{"steps": 1, "mixture": {"passkey": 1}, "blocks": 1, "learning_rate": 0.01, "block_size": 256}],
    "log_every": 1,
}
LORA = {"rank": 1, "alpha": 2, "targets": ["q_proj", "down_proj"]}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}<|a|>"
)
SHORT = 300
"""Characters of a text: the model reads it in milliseconds."""
QUESTIONS = ("narrativeqa", "qasper", "quality")
TASKS = (*QUESTIONS, "xlsum", "pg19", "isabelle")


def sample_rows(task: str) -> list[dict[str, Any]]:
    """The first two built-in rows of a task, its texts cut short."""
    from famcli.tasks.sources import SAMPLES

    if task == "isabelle":
        return [{"id": "One", "entry": "One", "title": "One", "text": "theory One imports Main begin end\n"}]
    path = SAMPLES / f"{task}.jsonl" if task != "xlsum" else SAMPLES / "xlsum" / "english.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()[:2]
    return [_shortened(json.loads(line)) for line in lines]


def scrolls_rows() -> list[dict[str, Any]]:
    """Rows in the schema of SCROLLS."""
    asked = "What is it?\n\n(A) red\n (B) green\n (C) blue\n (D) grey\n\nIt is green, and it was green for long."
    return [{"id": str(i), "pid": f"{i}_0", "input": asked, "output": "green"} for i in range(2)]


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value[:SHORT]
    if isinstance(value, list):
        return [_shortened(part) for part in value[:4]]
    return {name: _shortened(part) for name, part in value.items()} if isinstance(value, dict) else value


def write_theories(folder: Path) -> None:
    """An entry of two theories and a ROOT."""
    (folder / "Entry").mkdir(parents=True)
    (folder / "Entry" / "ROOT").write_text("session Entry = HOL + theories A B\n")
    (folder / "Entry" / "A.thy").write_text("theory A imports Main begin lemma a: True by simp end\n")
    (folder / "Entry" / "B.thy").write_text("theory B imports A begin lemma b: True by simp end\n")


def make_kit(folder: Path) -> None:
    """Writes all that lasts: models, an adapter, texts, data, runs and their baseline."""
    _own(folder / "own")
    _hub(folder / "hub")
    _gguf(folder / "model.gguf")
    _adapter(folder / "adapter")
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text(
        "The sky over Meridian was grey in 1843, and Captain Whitlock knew it. " * 40
    )
    (folder / "qa.jsonl").write_text(
        json.dumps({"document": "Ada lives in Ulm. " * 8, "question": "Where does Ada live?", "answer": "Ulm"}) + "\n"
    )
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    _runs(folder)


def _own(directory: Path) -> None:
    import torch

    from famcli.checkpoints.decoders import save_checkpoint
    from famcli.checkpoints.tokenizer import ByteTokenizer
    from famcli.models.config import ModelConfig
    from famcli.models.decoder import Decoder

    torch.manual_seed(0)
    decoder = Decoder(ModelConfig.from_mapping({**SHAPE, **MEMORY}, "the fuzzer"))
    decoder.initialise(0)  # the FAM's embeddings would be whatever the memory held
    save_checkpoint(decoder, ByteTokenizer(), directory, {})


HUB_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}


def _hub(directory: Path) -> None:
    import tokenizers
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(HUB_CONFIG))
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (300, 8),
        "model.norm.weight": (8,),
        f"{layer}.input_layernorm.weight": (8,),
        f"{layer}.post_attention_layernorm.weight": (8,),
        f"{layer}.self_attn.q_proj.weight": (8, 8),
        f"{layer}.self_attn.k_proj.weight": (4, 8),
        f"{layer}.self_attn.v_proj.weight": (4, 8),
        f"{layer}.self_attn.o_proj.weight": (8, 8),
        f"{layer}.mlp.gate_proj.weight": (8, 8),
        f"{layer}.mlp.up_proj.weight": (8, 8),
        f"{layer}.mlp.down_proj.weight": (8, 8),
    }
    torch.manual_seed(0)
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE, "add_bos_token": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(about))


def _gguf(file: Path) -> None:
    import gguf
    import numpy as np
    import tokenizers

    writer = gguf.GGUFWriter(file, "llama")
    numbers = {
        "block_count": 1,
        "context_length": 2048,
        "embedding_length": 8,
        "feed_forward_length": 8,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "rope.dimension_count": 4,
    }
    for name, value in numbers.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "gpt-2")
    writer.add_array("tokenizer.ggml.tokens", ["<end>", *letters, "ab"])
    writer.add_array("tokenizer.ggml.token_type", [3, *([1] * len(letters)), 1])
    writer.add_array("tokenizer.ggml.merges", ["a b"])
    writer.add_uint32("tokenizer.ggml.eos_token_id", 0)
    writer.add_string("tokenizer.chat_template", TEMPLATE)
    shapes = {"token_embd": (258, 8), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,)}
    shapes |= {"blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8)}
    shapes |= {f"blk.0.ffn_{name}": (8, 8) for name in ("gate", "up", "down")}
    draw = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _adapter(directory: Path) -> None:
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    about = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(about))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    pair = {name.format("A"): torch.ones(1, 8), name.format("B"): torch.ones(8, 1)}
    save_file(pair, directory / "adapter_model.safetensors")


def _runs(folder: Path) -> None:
    """Finished runs of two models with their prompts, the baseline of one, and what reading costs it."""
    from famcli.cli.main import main

    here = os.getcwd()
    os.chdir(folder)
    try:
        own = ["--model", "own", "--output", "results"]
        passkey = ["--task", "passkey", "-o", "lengths=300,320", "-o", "trials=2"]
        rows = "\n".join(json.dumps(row) for row in sample_rows("quality"))
        Path("quality.jsonl").write_text(rows + "\n")
        codes = [
            main(
                [
                    "eval",
                    *own,
                    "--model",
                    "own,memory_segments=1",
                    *passkey,
                    "--task",
                    "quality",
                    "--data",
                    "quality.jsonl",
                    "--keep-prompts",
                ]
            ),
            main(["profile", "--model", "own", "--lengths", "100,300", "--decode", "1", "--output", "profile"]),
            main(["check", *own, *passkey, "--baseline", "baseline.json", "--update"]),
        ]
        assert codes == [0, 0, 0], codes
    finally:
        os.chdir(here)


def copied(kit: Path, name: str, place: Path) -> Path:
    """A part of the kit in a case's own folder."""
    target = place / name
    if (kit / name).is_dir():
        shutil.copytree(kit / name, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kit / name, target)
    return target


def recipe(**changes: Any) -> dict[str, Any]:
    """A recipe of one step."""
    made = copy.deepcopy(RECIPE)
    made.update(changes)
    return made


def tame(value: Any) -> Any:
    """Counts that are not wrong, only long, made short: who asks for a million steps is to get them."""
    if isinstance(value, Mapping):
        return {
            name: min(part, 2) if name in _LONG and type(part) is int and 2 < part < 1 << 63 else tame(part)
            for name, part in value.items()
        }
    return [tame(part) for part in value] if isinstance(value, list) else value


_LONG = ("steps", "evaluate_streams", "rehearsal", "drift_updates", "waiting", "rehearsed_rows")
