"""Masked growth: nothing changes while masks are shut, and nothing is left of them once open."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY, every_variant, gap, generator, gradients, logits, loss, text, trained_like
from tiny_suite import finish, run_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from baselines.flm101b import FLM101B
from baselines.msg import MSG
from baselines.parts.masked_growth import MaskedGrowth
from baselines.parts.masking import MaskedNorm, MaskedTransformer
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.cost import Position, training_flops_per_token
from benchmark.model.transformer import ModelConfig, Norm, Part, Transformer
from benchmark.plan.config import load_method, load_suite
from benchmark.plan.run import Run
from benchmark.records.events import read_events
from benchmark.stage.checkpoint import State, load_state, save_state
from benchmark.training.baseline import Fit
from benchmark.training.optim import OptimizerConfig, RateCurve

EXACT = 1e-12
LARGE = {"d_model": 9, "n_head": 5, "d_ff": 17, "n_layer": 5}
"""No whole multiple of TINY's sizes."""

ALONE = [{name: size} for name, size in LARGE.items()]
each_growth = pytest.mark.parametrize("sizes", [LARGE, *ALONE], ids="-".join)


def marked(model: Transformer) -> Moments:
    """Adam state of which no entry is zero."""
    first = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    second = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    return Moments.adam(first, second, dict.fromkeys(first, 7.0))


def grown_from(
    small: Transformer,
    sizes: dict[str, int],
    model_class: type[Transformer] = MaskedTransformer,
    policy: StatePolicy = StatePolicy.ASYMMETRIC,
) -> Grown:
    """`small` grown to these sizes, with all masks shut."""
    resources = Resources(generator(3), model_class=model_class)
    target = small.config.resized(sizes)
    return grow(small, marked(small), target, [MaskedGrowth()], policy, resources)


def masked(sizes: dict[str, int] = LARGE, config: ModelConfig = TINY) -> MaskedTransformer:
    model = grown_from(trained_like(config), sizes).model
    assert isinstance(model, MaskedTransformer)
    return model


def plain(model: Transformer) -> Transformer:
    """The transformer without masks that has the same weights."""
    bare = Transformer(model.config).double()
    weights = {n: t for n, t in model.state_dict().items() if n in bare.state_dict()}
    bare.load_state_dict(weights)
    return bare


@every_variant
@each_growth
def test_shut_masks_leave_every_logit_as_it_was(config: ModelConfig, sizes: dict[str, int]) -> None:
    small = trained_like(config)
    assert gap(logits(grown_from(small, sizes).model), logits(small)) < EXACT


class PlainStatistics(MaskedNorm):
    """Masks what it returns, but not what it measures."""

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.mask(Norm.forward(self, x_BTD))


class Careless(MaskedTransformer):
    """A masked transformer whose norms see new features."""

    @override
    def norm(self, config: ModelConfig, *, feeds_tied_head: bool = False) -> Part:
        return PlainStatistics(config, feeds_tied_head=feeds_tied_head)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_masks_without_masked_statistics_are_caught(norm: str) -> None:
    small = trained_like(replace(TINY, norm=norm))
    careless = grown_from(small, {"d_model": 9}, Careless)
    assert gap(logits(careless.model), logits(small)) > 1e-3


@every_variant
def test_open_masks_leave_the_plain_transformer_bit_for_bit(config: ModelConfig) -> None:
    model = masked(config=config)
    expected = logits(plain(model))
    assert gap(logits(model), expected) > 1e-3
    model.open(1 - 1e-9)
    assert gap(logits(model), expected) < 1e-6
    model.open(1.0)
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_norms_weigh_features_by_their_masks(norm: str) -> None:
    part = MaskedNorm(replace(TINY, d_model=3, norm=norm)).double()
    part.mask.load_state_dict({"value": torch.tensor([1.0, 1.0, 0.0])})
    part.mask.open(0.5)
    x, c = [3.0, -1.0, 2.0], [1.0, 1.0, 0.5]
    mean = 0.0 if norm == "rmsnorm" else (3.0 - 1.0 + 0.5 * 2.0) / 2.5
    square = sum(w * (v - mean) ** 2 for w, v in zip(c, x, strict=True)) / 2.5
    by_hand = [w * (v - mean) / (square + 1e-5) ** 0.5 for w, v in zip(c, x, strict=True)]
    found = part(torch.tensor(x, dtype=torch.float64)).detach()
    assert gap(found, torch.tensor(by_hand, dtype=torch.float64)) < EXACT


@every_variant
def test_new_weights_have_no_gradient_until_masks_leave_zero(config: ModelConfig) -> None:
    grown = grown_from(trained_like(config), LARGE)
    shut = gradients(grown.model)
    assert isinstance(grown.model, MaskedTransformer)
    grown.model.open(0.1)
    ajar = gradients(grown.model)
    for name, new in grown.is_new.items():
        assert not shut[name][new].any(), name
        is_table = name in ("embed.weight", "positions.weight")  # not every row is looked up
        assert ajar[name][new].any() if is_table else ajar[name][new].all(), name


def test_old_moments_are_kept_and_new_ones_are_zero() -> None:
    grown = grown_from(trained_like(TINY), LARGE, policy=StatePolicy.CARRY)
    for name, moment in grown.moments.exp_avg.items():
        assert torch.equal(moment == 0, grown.is_new[name]), name
    assert grown.is_new["blocks.2.o.weight"].all()
    assert grown.is_new["blocks.1.o.weight"].sum() == 9 * 20 - 6 * 12
    assert grown.moments.step["blocks.1.o.weight"] == 7.0
    assert grown.moments.step["blocks.2.o.weight"] == 0.0


def test_new_blocks_repeat_the_old_stack_behind_one_mask_each() -> None:
    small = trained_like(TINY)
    model = grown_from(small, {"n_layer": 5}).model
    for layer, source in enumerate([0, 1, 0, 1, 0]):
        for part in ("qkv", "down"):
            old = small.get_parameter(f"blocks.{source}.{part}.weight")
            assert torch.equal(model.get_parameter(f"blocks.{layer}.{part}.weight"), old)
    shut = [
        name for name, mask in MaskedTransformer.hide(TINY, model.config).items() if not mask.all()
    ]
    assert shut == [f"blocks.{layer}.mask_block.value" for layer in (2, 3, 4)]


def test_a_new_weight_is_drawn_like_any_other() -> None:
    config = replace(TINY, d_model=64, d_ff=64)
    model = masked({"d_model": 256}, config)
    new = model.get_parameter("blocks.0.up.weight")[:, 64:]
    assert new.std().item() == pytest.approx(256**-0.5, rel=0.05)


def test_masks_survive_a_checkpoint(tmp_path: Path) -> None:
    model = masked().float()
    model.open(0.25)
    state = State(
        model=model, moments=marked(model), is_new={}, position=Position(), start=Position()
    )
    save_state(tmp_path / "state", state)
    loaded = load_state(tmp_path / "state", MaskedTransformer, "cpu").model
    assert torch.equal(logits(loaded), logits(model))
    assert isinstance(loaded, MaskedTransformer)
    for either in (model, loaded):
        either.open(0.5)
    assert torch.equal(logits(loaded), logits(model))


def test_growth_waits_until_masks_are_open() -> None:
    model = masked({"d_ff": 17})
    with pytest.raises(GrowthError, match="masks of the last growth are not open"):
        grown_from(model, {"d_model": 9})
    model.open(1.0)
    again = grown_from(model, {"d_model": 9}).model
    assert gap(logits(again), logits(model)) < EXACT


def begun(model: Transformer, ramp: float, n_done: int) -> MSG:
    """MSG about to take a step; a step costs one of a budget of 100 FLOPs, growth was at 30."""
    method = MSG(ramp)
    method.begin(
        Fit(
            model=model, moments=Moments.zeros(model), is_new={}, optimizer=OptimizerConfig(),
            rate=RateCurve(peak=1e-3, warmup_flops=1.0, decay=None), rewarm=None,
            budget_flops=100.0, grown_at=30.0, start_flops=30.0, n_done=n_done, step_flops=1.0,
        )
    )  # fmt: skip
    return method


@pytest.mark.parametrize(("n_done", "m"), [(0, 0.0), (1, 0.05), (5, 0.25), (20, 1.0), (40, 1.0)])
def test_the_mask_is_a_function_of_the_budget_spent_since_growth(n_done: int, m: float) -> None:
    model = masked()
    begun(model, ramp=0.2, n_done=n_done)
    old, new = model.state_dict()["norm_head.mask.value"].split([6, 3])
    assert torch.equal(old, torch.ones(6)), "old coordinates are never masked"
    torch.testing.assert_close(new, torch.full((3,), m))
    assert model.is_open == (m == 1)


def test_the_ramp_is_charged_at_full_size() -> None:
    model = masked()
    model.open(0.5)
    window = text(model.config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(model, window).backward()
    per_token = training_flops_per_token(Transformer.shell(model.config), causal=False)
    assert counter.get_total_flops() == per_token * window[:, :-1].numel()


def test_refuses_a_ramp_of_no_length() -> None:
    with pytest.raises(ConfigError, match="ramp must be above 0, got 0"):
        MSG(ramp=0)


def run_on_cpu(method: str) -> Run:
    suite = load_suite("cpu")
    return Run(suite, load_method(method), 0, {"train": 10**9, "val": 1, "test": 1})


def test_the_source_is_plain_and_shared_with_other_methods() -> None:
    ours, theirs = (run_on_cpu(name).predicted() for name in ("msg", "hypercloning"))
    for (spec, _), (other, _) in zip(ours, theirs, strict=True):
        assert (spec.id == other.id) == (spec.n_grown == 0)
    assert {spec.model_class for spec, _ in ours} == {
        "benchmark.model.transformer:Transformer",
        "baselines.parts.masking:MaskedTransformer",
    }


def test_flm101b_spends_the_published_shares_of_its_tokens() -> None:
    run = run_on_cpu("flm101b")
    tokens = [0, 0, 0]
    start = 0
    for spec, result in run.predicted():
        tokens[spec.n_grown] += result.end.tokens - start
        start = result.end.tokens
    published = [245.37, 39.64, 26.54]
    for ours, theirs in zip(tokens, published, strict=True):
        assert ours / sum(tokens) == pytest.approx(theirs / sum(published), abs=0.003)


def test_flm101b_lowers_its_rate_after_every_growth() -> None:
    specs = [spec for spec, _ in run_on_cpu("flm101b").predicted()]
    ratios = {spec.n_grown: spec.rewarm["ratio"] if spec.rewarm else None for spec in specs}
    assert ratios == {0: None, 1: 0.85, 2: 0.5}
    assert FLM101B().preserves_function


METHOD = """
name: msg
target: baselines.msg:MSG
args: {ramp: 0.3}
ladder: {n_growths: 1, shrink: {d_model: 2, n_layer: 2}}
schedule: {target: "benchmark.growth.schedule:AtFractions", args: {at: [0.2]}}
"""


def test_a_run_shuts_opens_and_saves_its_masks_with_the_position(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, METHOD)
    done = finish(run, context)
    events = [
        e
        for spec, _ in done
        for e in read_events(context.cache / "stages" / spec.id / "events.jsonl")
    ]
    growth = next(event for event in events if event["kind"] == "growth")
    assert growth["bpb_after"] == pytest.approx(growth["bpb_before"], rel=1e-6)
    seen = []
    for spec, result in done:
        if spec.n_grown == 1:
            path = context.cache / "stages" / spec.id / "checkpoint.safetensors"
            model = load_state(path, MaskedTransformer, "cpu").model
            m = min(1.0, (result.end.flops - growth["flops"]) / run.budget / 0.3)
            seen.append(m)
            mask = model.state_dict()["norm_head.mask.value"]
            torch.testing.assert_close(mask, torch.tensor([1.0] * 16 + [m] * 16))
    assert 0 < seen[0] < 1
    assert seen[-1] == 1
