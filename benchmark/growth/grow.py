"""Applies operators to a model and to its optimizer state, one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from typing_extensions import override

from benchmark.base.errors import GrowthError
from benchmark.growth.axis_map import address
from benchmark.growth.operator import (
    GrowthOperator,
    Moments,
    Resources,
    StatePolicy,
    Transfer,
    Weights,
)
from benchmark.model.transformer import ModelConfig, Transformer


@dataclass(frozen=True)
class Unchanged(Transfer):
    """Every weight and moment as it was: a control where others grow, or sizes without tensors."""

    model: Transformer

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {**fresh, **small}

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return small

    @override
    def is_new(self) -> Weights:
        named = self.model.named_parameters()
        return {name: torch.zeros_like(p, dtype=torch.bool) for name, p in named}


@dataclass(frozen=True)
class Grown:
    """What growth hands to the next stage."""

    model: Transformer
    moments: Moments
    is_new: Weights
    """bool per parameter entry: not the first image of a small entry."""

    flops: float = 0.0
    """What growing cost."""

    flops_masked: float = 0.0
    """What the masked half of attention would add to that."""


def grow(
    small: Transformer,
    moments: Moments,
    target: ModelConfig,
    operators: Sequence[GrowthOperator],
    policy: StatePolicy,
    resources: Resources,
) -> Grown:
    """Apply `operators` in order; each enlarges the sizes it grows.

    Args:
        small: trained model; left untouched, and no storage is shared with it.
        moments: its optimizer's state; left untouched.
        target: config of the model to return.
        operators: maps that together reach `target`.
        policy: what becomes of the moments.
        resources: randomness and data.

    Returns:
        The large model, its optimizer's state, and which of its entries are new.

    Raises:
        GrowthError: `target` shrinks a size, or enlarges one that no operator grows.
    """
    check_reach(small.config, target, operators)
    state = Grown(small, moments, {})
    for operator, middle in enlargements(small.config, target, operators):
        transfer = operator.prepare(state.model, middle, resources)
        state = _apply(state, transfer, middle, policy, resources)
    if state.model is small:
        state = _apply(state, Unchanged(small), small.config, policy, resources)
    return state


def enlargements(
    small: ModelConfig, target: ModelConfig, operators: Iterable[GrowthOperator]
) -> Iterator[tuple[GrowthOperator, ModelConfig]]:
    """The operators that enlarge something on the way to `target`, each with what it reaches."""
    for operator in operators:
        sizes = {name: target.size(name) for name in operator.grows if name in target.sizes()}
        if (middle := small.resized(sizes)) != small:
            yield operator, middle
            small = middle


@torch.no_grad()
def _apply(
    state: Grown,
    transfer: Transfer,
    target: ModelConfig,
    policy: StatePolicy,
    resources: Resources,
) -> Grown:
    small, moments = state.model.state_dict(), state.moments
    large = grown_model(state.model, transfer, target, resources)
    taken = _addresses(small, large.state_dict(), *moments.tensors.values())
    if policy is StatePolicy.RESET:
        grown_moments = Moments.zeros(large, moments.powers)
    else:
        grown_moments = _grown_moments(moments, transfer, policy, taken)
    is_new = {name: mask.to(large.device) for name, mask in transfer.is_new().items()}
    if any(bool(mask.any()) for mask in state.is_new.values()):
        was_new = transfer.moments({n: mask.float() for n, mask in state.is_new.items()}, 0)
        is_new = {name: mask | was_new[name].bool() for name, mask in is_new.items()}
    flops, masked = state.flops + transfer.flops, state.flops_masked + transfer.flops_masked
    return Grown(large, grown_moments, is_new, flops, masked)


def _grown_moments(
    moments: Moments, transfer: Transfer, policy: StatePolicy, taken: set[int]
) -> Moments:
    """Each tensor of the optimizer's state, grown by the gradient rule for its power.

    What grows are Adam's averages as they are kept, before bias correction: that divides by one
    number per tensor, 1 - beta ** step, at the next update, so it commutes with the map and is made
    with the grown count. A tensor that starts from several takes the highest of their counts. One
    whose last average (for Adam the second moment) holds nothing counts from zero: wholly new
    tensors are corrected as in a new model, and all are after `RESET`. New entries inside a warm
    tensor have its count and are not corrected: their updates are 0.45 to 1.1 times what they would
    be at the default betas (ADR 0008).

    Returns:
        State of the large model.
    """
    tensors = dict[str, Weights]()
    for kind, small in moments.tensors.items():
        if policy is StatePolicy.ASYMMETRIC:
            grown = transfer.first_images(small)
        else:
            is_scaled = policy is StatePolicy.SCALED
            grown = transfer.moments(small, moments.powers[kind] if is_scaled else 0)
        tensors[kind] = _own(grown, taken)
    steps, (*_, last) = transfer.steps(moments), tensors.values()
    step = {name: steps[name] if bool(v.any()) else 0.0 for name, v in last.items()}
    return Moments(tensors, step, moments.powers)


@torch.no_grad()
def grown_model(
    small: Transformer, transfer: Transfer, target: ModelConfig, resources: Resources
) -> Transformer:
    """The large model: what it needs is drawn, and every parameter is moved into it uncopied."""
    large = (resources.model_class or type(small))(target)
    large.init_weights(resources.generator, transfer.needs_fresh)
    resources.rule.scale_initial(large, transfer.needs_fresh)
    like, parameters = small.embed.weight, dict(large.named_parameters())
    for name, parameter in parameters.items():
        if not transfer.needs_fresh(name):  # free its memory, growth brings other
            parameter.data = parameter.new_empty(()).expand_as(parameter)
    state = large.state_dict()
    fresh = {
        name: tensor.to(like.device, like.dtype if name in parameters else tensor.dtype)
        for name, tensor in state.items()
        if transfer.needs_fresh(name)
    }
    old = small.state_dict()
    weights = _own(transfer.weights(old, fresh), _addresses(old))
    for name in state.keys() & weights.keys():
        if name not in parameters:
            weights[name] = state[name].copy_(weights[name])
    large.load_state_dict(weights, assign=True)
    return large.to(like.device)


def _own(tensors: Weights, taken: set[int]) -> Weights:
    """The tensors, copied where they are memory that is `taken`; takes what they occupy."""
    owned: Weights = {}
    for name, tensor in tensors.items():
        is_whole = tensor.is_contiguous() and address(tensor) not in taken
        owned[name] = tensor if is_whole else tensor.clone(memory_format=torch.contiguous_format)
        taken.add(address(owned[name]))
    return owned


def _addresses(*groups: Weights) -> set[int]:
    return {address(tensor) for group in groups for tensor in group.values()}


def grown_sizes(
    operators: Iterable[GrowthOperator], own_sizes: Iterable[str] = ()
) -> frozenset[str]:
    """Sizes that some of the operators may enlarge.

    Args:
        operators: of a method.
        own_sizes: names of the sizes that only its architecture has.

    Returns:
        Names of sizes.

    Raises:
        GrowthError: an operator does not say what it grows, or names no size of a model.
    """
    known, grows = ModelConfig.size_names().union(own_sizes), frozenset[str]()
    for operator in operators:
        stated: frozenset[str] = getattr(operator, "grows", frozenset())
        if not stated or not known.issuperset(stated):
            raise GrowthError(
                f"{type(operator).__name__}.grows must name some of {sorted(known)}, "
                f"got {sorted(stated) or 'nothing'}"
            )
        grows |= stated
    return grows


def check_reach(
    small: ModelConfig, target: ModelConfig, operators: Sequence[GrowthOperator]
) -> None:
    """Refuse a target that shrinks a size, enlarges one nobody grows, or is another variant.

    Raises:
        GrowthError: naming the size, both values and what the operators grow.
    """
    grows = sorted(grown_sizes(operators, dict(target.own)))
    sizes = small.sizes().keys() & target.sizes().keys()
    before, after = small.variant() | small.sizes(), target.variant() | target.sizes()
    for name in [name for name in before | after if name not in sizes]:
        if (old := before.get(name)) != (new := after.get(name)):
            raise GrowthError(f"growth cannot change {name} from {old!r} to {new!r}")
    for name in [name for name in target.sizes() if name in sizes]:
        was, becomes = small.size(name), target.size(name)
        if becomes < was:
            raise GrowthError(f"cannot shrink {name} from {was} to {becomes}")
        if becomes > was and name not in grows:
            does = f"this grows {grows}" if grows else "the method has no operators"
            raise GrowthError(f"cannot grow {name} from {was} to {becomes}: {does}")
