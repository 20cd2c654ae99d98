"""Saving, loading and going on is the same as never having stopped."""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmark.contract.subject import (
    Growth,
    Subject,
    Verdict,
    difference,
    logits,
    tensors_of,
)
from benchmark.model.cost import Position
from benchmark.stage.checkpoint import State, load_state, save_state

N_STEPS = 6


def resumption(subject: Subject) -> Verdict:
    """After a growth, three steps, a checkpoint and three steps give the bits of six steps."""
    rewarm = subject.baseline.rewarm
    for whole in subject.corners(dtype=torch.float32):
        parts = copy.deepcopy(whole)
        whole_moments = subject.train(whole, range(N_STEPS), rewarm)
        moments = subject.train(parts, range(N_STEPS // 2), rewarm)
        loaded = _through_disk(replace(parts, moments=moments))
        if not torch.equal(logits(parts.model), logits(loaded.model)):
            return Verdict(False, f"a loaded model has other logits: {whole.label}")
        moments = subject.train(loaded, range(N_STEPS // 2, N_STEPS), rewarm)
        ends = tensors_of(whole.model, whole_moments), tensors_of(loaded.model, moments)
        is_same = whole_moments.step == moments.step
        if name := difference(*ends) if is_same else "the step count":
            detail = f"{name} differs from training without a stop: {whole.label}"
            return Verdict(False, detail)
    return Verdict(True, f"bit for bit after {N_STEPS} steps")


def _through_disk(grown: Growth) -> Growth:
    state = State(
        model=grown.model,
        moments=grown.moments,
        is_new=grown.is_new,
        position=Position(),
        start=Position(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_state(path, state)
        loaded = load_state(path, type(grown.model), "cpu")
    return replace(grown, model=loaded.model, moments=loaded.moments, is_new=loaded.is_new)
