"""Growing has no side effects, and what it returns stands alone."""

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import Node

from benchmark.contract.subject import Subject, Verdict, difference, first_moments, loss, tensors_of
from benchmark.growth.grow import Grown
from benchmark.growth.operator import StatePolicy
from benchmark.model.transformer import Transformer
from benchmark.stage.process import ProcessState


def small_untouched(subject: Subject) -> Verdict:
    """The small model and its Adam state keep every bit, and nothing grown is their memory."""
    small, large = subject.pairs[0]
    for policy in StatePolicy:
        model = subject.small(small)
        moments = first_moments(model)
        before = {name: tensor.clone() for name, tensor in tensors_of(model, moments).items()}
        grown = subject.grow(model, large, policy=policy, moments=moments)
        if name := difference(before, tensors_of(model, moments)):
            return Verdict(False, f"growth under {policy.value} changes {name} of the small model")
        stored = {t.untyped_storage().data_ptr() for t in tensors_of(model, moments).values()}
        for name, tensor in _all_tensors(grown).items():
            if tensor.numel() and tensor.untyped_storage().data_ptr() in stored:
                return Verdict(False, f"under {policy.value}, {name} is memory of the small model")
    return Verdict(True, f"under {', '.join(policy.value for policy in StatePolicy)}")


def same_bits(subject: Subject) -> Verdict:
    """Two growths from one seed are equal bit for bit, by one instance of the method or two."""
    small, large = subject.pairs[0]
    first = subject.grow(subject.small(small), large)
    for operators in (subject.baseline.operators, subject.build().operators):
        again = subject.grow(subject.small(small), large, operators=operators)
        if name := difference(_all_tensors(first), _all_tensors(again)):
            return Verdict(False, f"a second growth from the same seed differs in {name}")
    return Verdict(True, first.label)


def process_untouched(subject: Subject) -> Verdict:
    """Growing leaves global random generators, and other settings of its process, as they were."""
    for small, large in (subject.pairs[0], subject.pairs[-1]):
        model = subject.small(small)
        torch.rand(())  # or the generators might stand where growing leaves them
        np.random.rand()  # noqa: NPY002 - the global one
        random.random()
        with ProcessState() as process:
            subject.grow(model, large)
            process.check(type(subject.baseline).__name__)
    return Verdict(True, "torch, numpy and Python")


def optimizer_groups(subject: Subject) -> Verdict:
    """Every tensor that the loss has a gradient for, and every one that learns, is in one group."""
    for growth in subject.corners(StatePolicy.RESET):
        model, optimizer = growth.model, subject.begin(growth, range(1)).optimizer
        groups = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
        names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        leaves = {id(leaf): f"a tensor {tuple(leaf.shape)} of no module" for leaf in _leaves(model)}
        for key, name in (leaves | names).items():
            if groups[key] != 1:
                return Verdict(False, f"{name} is trained by {groups[key]} optimizer groups")
    return Verdict(True, "every tensor that the loss depends on is in exactly one")


def _leaves(model: Transformer) -> Iterator[Tensor]:
    """Tensors that the graph of the loss ends in."""
    nodes: list[Node | None] = [loss(model.eval()).grad_fn]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        following = {function for function, _ in node.next_functions} - seen
        seen |= following
        nodes.extend(following)


def _all_tensors(grown: Grown) -> dict[str, Tensor]:
    marks = {f"the mark of new entries of {name}": mask for name, mask in grown.is_new.items()}
    return {**tensors_of(grown.model, grown.moments), **marks}
