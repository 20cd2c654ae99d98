"""AdamW's state as the Trainer of transformers saves it, grown as gradients grow.

optimizer.pt numbers parameters: first those that decay, then the others, each in the order of the
model. The same order is taken of the large model. Unlike weights, it is held in memory as a whole.
"""

import pickle
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.base.errors import CheckpointError
from benchmark.growth.operator import ADAM
from benchmark.pretrained.architecture import Named, stored_shape
from benchmark.pretrained.grow import Plan, to_stored

FILE = "optimizer.pt"
BESIDE = ("scheduler.pt", "trainer_state.json")
"""Without them the Trainer does not read the optimizer's state; copied, never opened."""

WITHOUT_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
"""Names of parameters that the Trainer does not decay; nor does it those of a LayerNorm."""


def grow_optimizer(plan: Plan, folder: Path) -> None:
    """Write the optimizer's state of the large checkpoint, and what the Trainer wants beside it.

    Args:
        plan: of the growth.
        folder: where the large checkpoint is being written; its config is there.

    Raises:
        CheckpointError: there is no state, it is none of AdamW, or it is not that of this model.
    """
    saved, names = _loaded(plan.source.path / FILE), numbered_names(plan.source.path)
    if [len(group["params"]) for group in saved["param_groups"]] != list(map(len, names)):
        raise CheckpointError(f"{FILE} is of a model with other parameters, or none of the Trainer")
    specs = _specs(plan, plan.small.n_layer)
    small = {kind: dict[str, Tensor]() for kind in ("step", *ADAM)}
    for i, full_name in enumerate(chain(*names)):
        name, spec = specs[full_name].name, specs[full_name].spec
        if (state := saved["state"].get(i)) is not None:
            _check(state, stored_shape(spec, plan.small), full_name)
            for kind, of in small.items():
                of[name] = state[kind].T if spec.transposed and kind in ADAM else state[kind]
    grown_names = numbered_names(folder)
    state, start = _grown(plan, [*chain(*grown_names)], small), 0
    for group, members in zip(saved["param_groups"], grown_names, strict=True):
        group["params"] = list(range(start, start + len(members)))
        start += len(members)
    torch.save({"state": state, "param_groups": saved["param_groups"]}, folder / FILE)
    for name in BESIDE:
        if (plan.source.path / name).is_file():
            shutil.copyfile(plan.source.path / name, folder / name)


def _grown(
    plan: Plan, names: list[str], small: dict[str, dict[str, Tensor]]
) -> dict[int, dict[str, Tensor]]:
    """State of every large parameter by its number."""
    grown, specs = dict[int, dict[str, Tensor]](), _specs(plan, plan.large.n_layer)
    moments = {kind: plan.growth.moments(small[kind], power) for kind, power in ADAM.items()}
    for i, full_name in enumerate(names):
        name, spec = specs[full_name].name, specs[full_name].spec
        if (origin := plan.growth.origin(name)) not in small["step"]:
            continue
        shape = stored_shape(spec, plan.large)
        grown[i] = {
            kind: to_stored(of[name], spec, shape).contiguous() for kind, of in moments.items()
        }
        # as in growth of a run: what starts from nothing counts from zero
        grown[i]["step"] = small["step"][origin] * grown[i]["exp_avg_sq"].any()
    return grown


def _specs(plan: Plan, n_layer: int) -> dict[str, Named]:
    """Every parameter by transformers' name."""
    return {
        # GPT-NeoX calls its head embed_out in files alone
        "lm_head.weight" if tensor.spec.role == "head" else tensor.file_name: tensor
        for tensor in plan.layout.tensors(n_layer)
    }


def _loaded(path: Path) -> dict[str, Any]:
    """What a file holds, if that is tensors, numbers and texts alone."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path.name} is damaged, or holds more than tensors") from error
    if not (isinstance(saved, dict) and {"state", "param_groups"} <= saved.keys()):
        raise CheckpointError(f"{path.name} is not what an optimizer saves")
    return saved


def _check(state: dict[str, Tensor], shape: tuple[int, ...], name: str) -> None:
    """Refuse the state of one parameter if it is not AdamW's."""
    if state.keys() != {"step", *ADAM}:
        raise CheckpointError(f"{FILE}: {name} has {sorted(state)}, AdamW has step, {sorted(ADAM)}")
    if found := [kind for kind in ADAM if state[kind].shape != shape]:
        raise CheckpointError(
            f"{FILE}: {found[0]} of {name} is not {list(shape)}, as its weight is"
        )


def numbered_names(folder: Path) -> list[list[str]]:
    """Parameters of the Trainer's two groups, as transformers names them, in order."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - an extra
    from transformers.trainer_pt_utils import get_parameter_names  # noqa: PLC0415 - an extra

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    decayed = {*get_parameter_names(model, [nn.LayerNorm], WITHOUT_DECAY)}
    names = [name for name, _ in model.named_parameters()]
    return [[n for n in names if n in decayed], [n for n in names if n not in decayed]]
