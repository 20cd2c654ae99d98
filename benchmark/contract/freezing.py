"""What a method freezes rests, and some of the model learns."""

import torch

from benchmark.contract.subject import Subject, Verdict, describe
from benchmark.growth.operator import Moments

N_STEPS = 5


def frozen_weights(subject: Subject) -> Verdict:
    """A frozen parameter has no gradient, and training moves no bit of it or of its moments.

    Under weight decay and the method's own rules for the learning rate.
    """
    n_frozen = 0
    for small, large in subject.corners:
        frozen = subject.baseline.frozen(small, large)
        grown = subject.grow(subject.small(small), large)
        before = {name: grown.model.get_parameter(name).detach().clone() for name in frozen}
        rewarm = subject.baseline.rewarm
        after = subject.train(grown, range(N_STEPS), rewarm, frozen=frozen, weight_decay=0.5)
        for name, old in before.items():
            weight = grown.model.get_parameter(name)
            if weight.grad is not None:
                return Verdict(False, f"{name} is frozen and has a gradient")
            if not torch.equal(weight, old) or not _is_kept(name, grown.moments, after):
                detail = f"{name} is frozen, and it or its moments change: {describe(small, large)}"
                return Verdict(False, detail)
        n_frozen += len(frozen)
    return Verdict(True, f"{n_frozen} tensors rest" if n_frozen else "nothing is frozen")


def _is_kept(name: str, before: Moments, after: Moments) -> bool:
    pairs = ((before.exp_avg, after.exp_avg), (before.exp_avg_sq, after.exp_avg_sq))
    is_same = all(torch.equal(one[name], other[name]) for one, other in pairs)
    return is_same and before.step[name] == after.step[name]
