"""Time and memory of `growbench grow` on a synthetic Llama, beside copying its files.

Run as `python -m tools.grow_speed [GIGABYTES] [METHOD SIZE=VALUE ...]`. The checkpoint, in 8 shards
of bfloat16, is made in a temporary folder that is removed.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmark.pretrained.folder import (
    CheckpointFolder,
    Entry,
    shard_names,
    write_index,
    write_json,
    write_shard,
)
from benchmark.pretrained.grow import Plan, Request

N_SHARDS, MEGABYTE = 8, 10**6
D_MODEL, D_FF, VOCAB = 2048, 8192, 32_000
"""Of a model between 1 and 2 billion parameters; its blocks are as many as the gigabytes need."""


def main(gigabytes: float = 2.0, method: str = "llama_pro", *sizes: str) -> None:
    """Make a checkpoint, copy it, grow it, and print what that took."""
    with tempfile.TemporaryDirectory() as folder:
        small, large, copy = (Path(folder) / name for name in ("small", "large", "copy"))
        n_layer = make(small, int(gigabytes * 10**9))
        started = settled()
        shutil.copytree(small, copy)
        copying = time.perf_counter() - started
        to = [*sizes] or [f"n_layer={n_layer + n_layer // 4}"]
        started = settled()
        plan = Plan(Request(path=small, method=method, to=to, arguments={}))
        large.mkdir()
        plan.write(large)
        growing = time.perf_counter() - started
        shutil.rmtree(copy)
        options = [part for size in to for part in ("--to", size)]
        command = [sys.executable, "-m", "benchmark", "grow", str(small), "--method", method]
        started = settled()
        subprocess.run([*command, *options, "--out", str(copy), "--no-check"], check=True)
        took = {
            "copying": copying,
            "growing": growing,
            "the command": time.perf_counter() - started,
        }
        report(small, large, took)


def settled() -> float:
    """The time, once nothing is waiting to be written to the disk."""
    os.sync()
    return time.perf_counter()


def make(folder: Path, n_bytes: int) -> int:
    """Write random shards; returns the number of blocks."""
    block = {
        "input_layernorm": (D_MODEL,), "post_attention_layernorm": (D_MODEL,),
        "self_attn.q_proj": (D_MODEL, D_MODEL), "self_attn.o_proj": (D_MODEL, D_MODEL),
        "self_attn.k_proj": (D_MODEL // 4, D_MODEL), "self_attn.v_proj": (D_MODEL // 4, D_MODEL),
        "mlp.gate_proj": (D_FF, D_MODEL), "mlp.up_proj": (D_FF, D_MODEL),
        "mlp.down_proj": (D_MODEL, D_FF),
    }  # fmt: skip
    of_block = 2 * sum(torch.Size(shape).numel() for shape in block.values())
    n_layer = max(1, (n_bytes - 4 * VOCAB * D_MODEL) // of_block)
    shapes = {"model.embed_tokens": (VOCAB, D_MODEL), "model.norm": (D_MODEL,)}
    shapes |= {f"model.layers.{i}.{n}": s for i in range(n_layer) for n, s in block.items()}
    shapes["lm_head"] = (VOCAB, D_MODEL)
    entries = [Entry(f"{name}.weight", "BF16", shape) for name, shape in shapes.items()]
    n_each = -(-len(entries) // N_SHARDS)
    groups = [entries[i : i + n_each] for i in range(0, len(entries), n_each)]
    folder.mkdir()
    write_json(folder / "config.json", {
        "model_type": "llama", "hidden_size": D_MODEL, "num_hidden_layers": n_layer,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": D_FF,
        "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
    })  # fmt: skip
    for name, group in zip(shard_names(len(groups)), groups, strict=True):
        pieces = (torch.empty(e.shape, dtype=torch.bfloat16).normal_(std=0.02) for e in group)
        write_shard(folder / name, group, pieces)
    write_index(folder, groups)
    return int(n_layer)


def report(small: Path, large: Path, took: dict[str, float]) -> None:
    """Print speeds, and the peak beside its bound."""
    before, after = (CheckpointFolder(path).tensors.values() for path in (small, large))
    n_small, n_large = (sum(stored.n_bytes for stored in of) for of in (before, after))
    shard = max(file.stat().st_size for file in small.glob("*.safetensors"))
    bound = max(stored.n_bytes for stored in after) + shard + 200 * MEGABYTE
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    out = sys.stdout
    for what, seconds in took.items():
        n_bytes = n_small if what == "copying" else n_large
        share = n_bytes / seconds / (n_small / took["copying"])
        out.write(f"{what}: {n_bytes / MEGABYTE:.0f} MB written in {seconds:.1f} s, {share:.2f}\n")
    out.write(f"peak memory of the command {peak / MEGABYTE:.0f} MB, ")
    out.write(f"largest tensor + shard + 200 MB is {bound / MEGABYTE:.0f} MB\n")


if __name__ == "__main__":
    main(*(float(text) if i == 0 else text for i, text in enumerate(sys.argv[1:])))  # type: ignore[arg-type]
