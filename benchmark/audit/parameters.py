"""How many parameters a model of these sizes has, tensor by tensor, and whether its stage says so.

Written down again for the three architectures that the shipped methods train. What somebody else's
method trains may have others: then its counts, and what a step costs, stand as stated.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.audit.evidence import Evidence, Remark, numbered
from benchmark.records.events import Event

SHIPPED = "baselines."
"""Where the classes are whose architectures are known."""

Target = Mapping[str, Any]


def tensors(sizes: Mapping[str, int], target: Target) -> dict[str, int]:
    """Parameters by tensor, those of all blocks together.

    Args:
        sizes: of the model; `n_token`, `n_rest` or `rank` only if the architecture has them.
        target: `workload.target`: activation, positions, tied.
    """
    d, inner, d_ff = sizes["d_model"], sizes["n_head"] * sizes["d_head"], sizes["d_ff"]
    queries = sizes.get("n_query", 1)
    n_up = 2 if target["activation"] == "swiglu" else 1
    # groups that are fused along the first axis; then what one of them maps to and from
    maps = {"qkv": (queries + 2, inner, d), "o": (1, d, queries * inner),
            "up": (n_up, d_ff, d), "down": (1, d, d_ff)}  # fmt: skip
    block = {"norm_attn.weight": d, "norm_mlp.weight": d}
    if target.get("qk_norm"):
        block["norm_qk.weight"] = 2 * sizes["d_head"]
    if "n_token" in sizes:
        block |= _tokens(sizes, {"qkv": maps["qkv"], "o": maps["o"], "mlp": (4, d, d)})
    else:
        for name, (groups, to, of) in maps.items():
            rank = sizes.get("rank", math.inf)
            if rank * (to + of) < to * of:
                block[f"{name}.read"] = groups * int(rank) * of
                block[f"{name}.write"] = groups * int(rank) * to
            else:
                block[f"{name}.weight"] = groups * to * of
    found = {"embed.weight": sizes["vocab_size"] * d, "norm_head.weight": d}
    if target["positions"] == "learned":
        found["positions.weight"] = sizes["seq_len"] * d
    if not target["tied"]:
        found["head.weight"] = sizes["vocab_size"] * d
    return found | {f"blocks.{name}": sizes["n_layer"] * n for name, n in block.items()}


def _tokens(sizes: Mapping[str, int], maps: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Keys and values of a block; of a model with `n_rest` the old ones, then the new ones."""
    old = sizes.get("n_rest", sizes["n_token"])
    parts = {"": old, "_new": sizes["n_token"] - old}
    return {
        f"{name}.{kind}{suffix}": groups * n * features
        for name, (groups, to, of) in maps.items()
        for kind, features in (("read", of), ("write", to))
        for suffix, n in parts.items()
        if n
    }


def is_known(config: Mapping[str, Any], stage: Event) -> bool:
    """Whether a stage's architecture is one of those known here.

    That of a shipped class is, whatever the record says; of another class, if it counts alike.
    """
    if config["method"]["target"].startswith(SHIPPED):
        return True
    return bool(stage["n_params_by_group"] == tensors(stage["sizes"], config["workload"]["target"]))


def parameters(evidence: Evidence) -> Iterator[Remark]:
    """Every stage has the parameters, tensor by tensor, of the model of its sizes."""
    unknown: dict[str, str] = {}
    for run in evidence.ran:
        for place, stage in numbered(run, "stage"):
            said = dict(stage["n_params_by_group"])
            if is_known(run.config, stage):
                yield from _agree(
                    place, said, tensors(stage["sizes"], run.config["workload"]["target"])
                )
            else:
                unknown[run.method] = place
            whole = sum(said.values())
            right = {"n_params": whole, "n_params_nonembedding": whole - said["embed.weight"]}
            for name, value in right.items():
                if stage[name] != value:
                    yield Remark(f"{place}: {name} {stage[name]}, its tensors have {value}")
    for method, place in unknown.items():
        text = f"{place}: its tensors as stated: the architecture of {method} is not known here"
        yield Remark(text, is_fault=False)


def _agree(place: str, said: Mapping[str, int], right: Mapping[str, int]) -> Iterator[Remark]:
    for name in sorted(said.keys() | right.keys()):
        if said.get(name) != right.get(name):
            has, wanted = said.get(name, "no"), right.get(name, "none")
            yield Remark(f"{place}: {has} parameters in {name}, a model of its sizes has {wanted}")
