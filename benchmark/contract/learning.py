"""Every entry of a grown model learns, copies go separate ways, and what is frozen rests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from benchmark.contract.subject import Subject, Verdict
from benchmark.growth.operator import Moments, StatePolicy, Weights
from benchmark.model.transformer import ModelConfig, Transformer

STEPS_TO_MOVE = 20
STEPS_TO_SEPARATE = 50
STEPS_AT_REST = 5
SEPARATE = 1e-3
"""Least distance of two copies, relative to their length."""


@dataclass(frozen=True)
class Movement:
    """How much of one tensor has moved."""

    tensor: str
    """Its name, and the growth that made it."""

    n_still: int
    """Entries that have not."""

    n_new: int
    """Entries that are not the first image of a small entry."""

    n_new_still: int


def no_dead_entries(subject: Subject) -> Verdict:
    """Every entry that is not frozen has moved after 20 steps."""
    dead = {found.tensor: found.n_still for found in movements(subject) if found.n_still}
    count, allowed = sum(dead.values()), subject.baseline.leaves_dead_entries
    if not dead:
        detail = f"after {STEPS_TO_MOVE} steps every entry has moved"
        return Verdict(not allowed, detail + (", unlike declared" if allowed else ""))
    detail = f"{count} entries have not moved after {STEPS_TO_MOVE} steps, such as in {min(dead)}"
    return Verdict(allowed, detail + (", as declared" if allowed else ""))


@lru_cache(maxsize=1)
def movements(subject: Subject) -> tuple[Movement, ...]:
    """Which entries move in 20 steps, tensor by tensor; measured once per subject.

    Without weight decay and from empty moments, so that nothing but a gradient can move them.
    Frozen tensors are left out.
    """
    found: list[Movement] = []
    for grown in subject.corners(StatePolicy.RESET):
        before = {name: weight.detach().clone() for name, weight in grown.model.named_parameters()}
        subject.train(grown, range(STEPS_TO_MOVE), weight_decay=0.0)
        for name, weight in grown.model.named_parameters():
            if weight.requires_grad:
                is_still, is_new = weight == before[name], grown.is_new[name]
                counts = (is_still, is_new, is_still & is_new)
                tensor = f"{name} of {grown.label}"
                found.append(Movement(tensor, *(int(entries.sum()) for entries in counts)))
    return tuple(found)


def copies_separate(subject: Subject) -> Verdict:
    """After 50 steps under the method's own rules no two copies of a coordinate are alike.

    Coordinates with the same source start as copies; without dropout, equal gradients keep them
    equal for ever, and the grown model has the capacity of the small one. Copies are alike if they
    are produced with the same weights, summed over the copies of what is read: those of a
    block-diagonal model read each its own, and may still all compute the same.
    """
    found, allowed = distances(subject), subject.baseline.leaves_copies_equal
    if not found:
        return Verdict(not allowed, "no coordinate is copied")
    least = min(found, key=lambda name: found[name])
    passed = (found[least] > SEPARATE) is not allowed
    detail = f"after {STEPS_TO_SEPARATE} steps the closest copies are {found[least]:.1e} apart"
    return Verdict(passed, f"{detail}: {least}")


@lru_cache(maxsize=1)
def distances(subject: Subject) -> Mapping[str, float]:
    """Distance of copies after training, relative to their length; measured once per subject."""
    found: dict[str, float] = {}
    config = subject.pairs[0][0]
    for grown in subject.growths(config):
        target = grown.model.config
        copies = list(_copies(subject, config, target))
        if copies:
            subject.train(grown, range(STEPS_TO_SEPARATE), subject.baseline.rewarm)
        weights: Weights = dict(grown.model.named_parameters())
        first = {axis: torch.arange(target.size(axis)) for axis, _, _ in copies}
        for axis, a, b in copies:
            first[axis][b] = min(a, int(first[axis][b]))
        for axis, a, b in copies:
            one, other = _writers(grown.model, weights, axis, first)[[a, b]]
            distance = float((one - other).norm() / one.norm())
            found[f"{axis} {a} and {b} of {target.size(axis)}"] = distance
    return found


def _copies(
    subject: Subject, small: ModelConfig, large: ModelConfig
) -> Iterator[tuple[str, int, int]]:
    """Pairs of large coordinates with the same source, by axis.

    Moments carry random numbers from the small model's entries to their images, so coordinates
    that repeat the same one bear the same numbers, whatever was done to their weights.
    """
    model = subject.small(small)
    marks = {
        name: torch.rand(weight.shape, generator=torch.Generator().manual_seed(i)).double() + 1
        for i, (name, weight) in enumerate(model.named_parameters())
    }
    grown = subject.grow(
        model,
        large,
        policy=StatePolicy.CARRY,
        moments=Moments.adam(marks, marks, dict.fromkeys(marks, 1.0)),
    )
    written = {axis for axes in grown.model.axes().values() for axis in axes.out}
    for axis in sorted(subject.baseline.grows & written):
        marked = _writers(grown.model, grown.moments.exp_avg, axis, {})
        for a in range(len(marked)):
            for b in range(a):
                if marked[a].any() and torch.equal(marked[a], marked[b]):
                    yield axis, b, a


def _writers(
    model: Transformer, tensors: Weights, axis: str, first: Mapping[str, Tensor]
) -> Tensor:
    """What produces each coordinate of an axis, (coordinates, entries).

    What is read is summed over copies, into the coordinate that `first` gives for each axis.
    """
    writers: list[Tensor] = []
    for name, axes in model.axes().items():
        if axis in axes.out and name in tensors:
            tensor = tensors[name].detach().reshape(axes.shape(model.config))
            for dim, read in enumerate(axes.into, start=len(axes.out)):
                if read in first:
                    tensor = torch.zeros_like(tensor).index_add(dim, first[read], tensor)
            tensor = tensor.movedim(axes.out.index(axis), 0)
            writers.append(tensor.reshape(model.config.size(axis), -1))
    return torch.cat(writers, dim=1)


def frozen_weights(subject: Subject) -> Verdict:
    """A frozen parameter has no gradient, and training moves no bit of it or of its moments.

    Under weight decay and the method's own rules for the learning rate.
    """
    n_frozen = 0
    for grown in subject.corners():
        resting = {name: grown.model.get_parameter(name) for name in subject.frozen(grown)}
        before = {name: weight.detach().clone() for name, weight in resting.items()}
        rewarm = subject.baseline.rewarm
        after = subject.train(grown, range(STEPS_AT_REST), rewarm, weight_decay=0.5)
        for name, old in before.items():
            weight = resting[name]
            if weight.grad is not None:
                return Verdict(False, f"{name} is frozen and has a gradient")
            pairs = zip(grown.moments.tensors.values(), after.tensors.values(), strict=True)
            is_kept = all(torch.equal(one[name], other[name]) for one, other in pairs)
            is_kept &= torch.equal(weight, old) and grown.moments.step[name] == after.step[name]
            if not is_kept:
                detail = f"{name} is frozen, and it or its moments change: {grown.label}"
                return Verdict(False, detail)
        n_frozen += len(before)
    return Verdict(True, f"{n_frozen} tensors rest" if n_frozen else "nothing is frozen")
