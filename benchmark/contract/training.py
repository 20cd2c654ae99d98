"""Training is everyone's, costs what is charged, and shows no trace of being stopped or scored.

Black-box probes: they look at settings, at products counted and at weights, never at how a method
works. What a method reads or calls beside its batches is not watched: read its code.
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmark.contract.compute import flop_counter
from benchmark.contract.subject import (
    BATCH_SIZE,
    Growth,
    Subject,
    Verdict,
    difference,
    logits,
    loss,
    tensors_of,
    token_ids,
)
from benchmark.model.cost import Position
from benchmark.plan.guard import replacements
from benchmark.stage.checkpoint import State, load_state, save_state
from benchmark.training.evaluate import score
from benchmark.training.optim import build_optimizer, clipped_step, optimizer_flops

N_STEPS = 3


def shared_training(subject: Subject) -> Verdict:
    """Nothing of the shared training is replaced, before a run or in the course of one."""
    if replaced := replacements(subject.baseline):
        return Verdict(False, f"replaces {', '.join(replaced)}, which every method shares")
    for grown in subject.corners():
        baseline = subject.begin(grown, range(N_STEPS))
        shared = baseline.fit_spec
        right = _settings(
            build_optimizer(shared.model, shared.optimizer, shared.moments, shared.rule)
        )
        for when in ("before", "after"):
            if when == "after":
                subject.fit(baseline, grown, range(N_STEPS))
            found = _settings(baseline.optimizer)
            if changed := [key for key in right if found.get(key) != right[key]]:
                said = f"changes the optimizer's {', '.join(changed)} {when} training"
                return Verdict(False, said)
    return Verdict(True, "step, loss, optimizer and its settings")


def training_flops(subject: Subject) -> Verdict:
    """Whole steps take what model and optimizer take, whatever a method does in the course of them.

    What the optimizer takes is what it declares; what the model takes is held to the ledger's
    formula by another check.
    """
    for grown in subject.corners():
        alone = copy.deepcopy(grown)
        optimizer = subject.begin(alone, range(1)).optimizer
        with flop_counter() as once:
            loss(alone.model).backward()
            of_model = once.get_total_flops()
            clipped_step(optimizer, clip=1.0)
        shell = alone.model.shell(alone.model.config)
        declared = optimizer_flops(shell, subject.optimizer, subject.frozen(alone))
        if (updating := once.get_total_flops() - of_model) != declared:
            said = f"a step of the optimizer takes {updating} FLOPs, it declares {declared:.0f}"
            return Verdict(False, f"{said}: {grown.label}")
        baseline = subject.begin(grown, range(N_STEPS))
        with flop_counter() as counter:
            subject.fit(baseline, grown, range(N_STEPS))
        found, right = counter.get_total_flops(), N_STEPS * once.get_total_flops()
        if found != right:
            said = f"{N_STEPS} steps take {found} FLOPs, those of model and optimizer {right}"
            return Verdict(False, f"{said}: {grown.label}")
    return Verdict(True, f"{N_STEPS} steps, what goes on around the model included")


def evaluation(subject: Subject) -> Verdict:
    """Scoring a model leaves no trace in what it learns afterwards."""
    for started in subject.corners():
        ends = []
        for is_scored in (False, True):
            grown = copy.deepcopy(started)
            subject.train(grown, range(N_STEPS))
            if is_scored:
                ids = token_ids(grown.model.config).flatten()
                score(grown.model, ids.to(torch.uint8), BATCH_SIZE)
            subject.train(grown, range(N_STEPS, 2 * N_STEPS))
            ends.append(grown.model.state_dict())
        changed = [name for name, end in ends[0].items() if not torch.equal(end, ends[1][name])]
        if changed:
            said = f"{changed[0]} learns otherwise once the model was scored"
            return Verdict(False, f"{said}: {grown.label}")
    return Verdict(True, f"{N_STEPS} steps before and after")


def resumption(subject: Subject) -> Verdict:
    """After a growth, three steps, a checkpoint and three steps give the bits of six steps."""
    rewarm = subject.baseline.rewarm
    for whole in subject.corners(dtype=torch.float32):
        parts = copy.deepcopy(whole)
        whole_moments = subject.train(whole, range(2 * N_STEPS), rewarm)
        moments = subject.train(parts, range(N_STEPS), rewarm)
        loaded = _through_disk(replace(parts, moments=moments))
        if not torch.equal(logits(parts.model), logits(loaded.model)):
            return Verdict(False, f"a loaded model has other logits: {whole.label}")
        moments = subject.train(loaded, range(N_STEPS, 2 * N_STEPS), rewarm)
        ends = tensors_of(whole.model, whole_moments), tensors_of(loaded.model, moments)
        is_same = whole_moments.step == moments.step
        if name := difference(*ends) if is_same else "the step count":
            detail = f"{name} differs from training without a stop: {whole.label}"
            return Verdict(False, detail)
    return Verdict(True, f"bit for bit after {2 * N_STEPS} steps")


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


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What the optimizer does with each of its parameters; the rate is the schedule's."""
    return {
        f"{key} of group {number}": (len(value) if key == "params" else value)
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key != "lr"
    }
