"""LiGO: the map is the one on paper, the grown model is what was learned, and all of it is paid."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY, every_variant, gap, generator, logits, text, trained_like
from tiny_suite import finish, run_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from baselines.ligo import LiGO
from baselines.parts.factors import InitialFactors
from baselines.parts.kronecker import FactorisedMap
from baselines.parts.learned_map import LearnedMap
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import Moments, Resources, StatePolicy, Weights
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.records.events import read_events
from benchmark.training.optim import OptimizerConfig, build_optimizer

EXACT = 1e-12
LARGE = {"d_model": 9, "n_head": 5, "d_ff": 17, "n_layer": 5}
ALONE = [{name: size} for name, size in LARGE.items()]
each_growth = pytest.mark.parametrize("sizes", [LARGE, *ALONE], ids="-".join)


def factors_for(
    small: Transformer, sizes: dict[str, int] = LARGE, initial: InitialFactors | None = None
) -> dict[str, Tensor]:
    """Factors that no sum or symmetry can hide, in float64."""
    target = small.config.resized(sizes)
    drawn = (initial or InitialFactors()).draw(small, target, generator(4))
    noise = {
        name: torch.randn(f.shape, generator=generator(5)).double() for name, f in drawn.items()
    }
    return {name: factor + 0.1 * noise[name] for name, factor in drawn.items()}


def map_of(small: Transformer, sizes: dict[str, int] = LARGE) -> FactorisedMap:
    return FactorisedMap(small, small.config.resized(sizes), factors_for(small, sizes))


class Reader(Iterator[Tensor]):
    """Endless windows of random text, counted as they are read."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.n_read = config, 0

    def __next__(self) -> Tensor:
        self.n_read += 1
        return text(self.config, seed=self.n_read)


def grown_from(
    small: Transformer,
    n_steps: int = 3,
    policy: StatePolicy = StatePolicy.RESET,
    sizes: dict[str, int] = LARGE,
) -> Grown:
    target, reader = small.config.resized(sizes), Reader(small.config)
    ones = {name: torch.ones_like(p) for name, p in small.named_parameters()}
    moments = Moments.adam(ones, dict(ones), dict.fromkeys(ones, 7.0))
    operator, resources = LearnedMap(n_steps=n_steps), Resources(generator(3), reader)
    grown = grow(small, moments, target, [operator], policy, resources)
    assert reader.n_read == n_steps
    return grown


def by_hand(small: Weights, factors: dict[str, Tensor], layer: int) -> Weights:
    """One large block of TINY with rotary positions and GELU, in plain matrix products."""
    E, F, heads = factors["d_model"], factors["d_ff"], factors["n_head"]

    def blended(part: str) -> Tensor:
        blend = factors[f"blocks.*.{part}"][..., layer, :]
        layers = torch.stack([small[f"blocks.{i}.{part}"] for i in range(TINY.n_layer)])
        if part != "qkv.weight":
            return blend[0] * layers[0] + blend[1] * layers[1]
        thirds = zip(blend, layers.chunk(3, dim=1), strict=True)
        return torch.cat([w[0] * third[0] + w[1] * third[1] for w, third in thirds])

    q, k, v = (B @ W @ E.T for B, W in zip(heads, blended("qkv.weight").chunk(3), strict=True))
    return {
        "norm_attn.weight": E @ blended("norm_attn.weight"),
        "qkv.weight": torch.cat([q, k, v]),
        "o.weight": E @ blended("o.weight") @ heads[2].T,
        "norm_mlp.weight": E @ blended("norm_mlp.weight"),
        "up.weight": F @ blended("up.weight") @ E.T,
        "down.weight": E @ blended("down.weight") @ F.T,
    }


def test_every_tensor_is_the_product_on_paper() -> None:
    small = trained_like(TINY)
    factors, old = factors_for(small), small.state_dict()
    grown = FactorisedMap(small, TINY.resized(LARGE), factors).parameters()
    E = factors["d_model"]
    expected = {
        "embed.weight": old["embed.weight"] @ E.T,
        "norm_head.weight": E @ old["norm_head.weight"],
        "head.weight": old["head.weight"] @ E.T,
    }
    for layer in range(LARGE["n_layer"]):
        block = by_hand(old, factors, layer)
        expected |= {f"blocks.{layer}.{part}": weight for part, weight in block.items()}
    assert grown.keys() == expected.keys()
    for name, weight in expected.items():
        assert gap(grown[name], weight) < EXACT, name


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_grown_model_is_the_learned_function_bit_for_bit(
    config: ModelConfig, dtype: torch.dtype
) -> None:
    learned = map_of(trained_like(config).to(dtype))
    learned.factors = {name: factor.to(dtype) for name, factor in learned.factors.items()}
    baked = Transformer(config.resized(LARGE)).to(dtype)
    baked.load_state_dict(learned.parameters(), strict=False)
    ids = text(config)[:, :-1]
    with torch.no_grad():
        assert torch.equal(learned.logits(ids), baked(ids))


def test_every_factor_matters_to_the_function() -> None:
    small = trained_like(TINY)
    learned = map_of(small)
    ids = text(TINY)[:, :-1]
    before = learned.logits(ids)
    for name, factor in learned.factors.items():
        learned.factors[name] = factor * 1.01
        assert gap(learned.logits(ids), before) > 1e-6, name
        learned.factors[name] = factor


@every_variant
def test_without_growth_the_map_is_the_identity(config: ModelConfig) -> None:
    small = trained_like(config)
    same = FactorisedMap(small, config, {}).parameters()
    assert all(torch.equal(same[name], weight) for name, weight in small.named_parameters())


@each_growth
def test_the_charge_of_a_forward_pass_of_the_map_is_what_torch_counts(
    sizes: dict[str, int],
) -> None:
    learned = map_of(trained_like(TINY), sizes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learned.parameters()
    assert learned.flops == counter.get_total_flops() > 0


@every_variant
def test_the_charge_of_learning_is_what_torch_counts(config: ModelConfig) -> None:
    """The counter also sees the half of the scores that the causal mask hides."""
    small, n_steps = trained_like(config), 3
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        grown = grown_from(small, n_steps)
    shell = Transformer.shell(grown.model.config)
    n_tokens = n_steps * text(config)[:, :-1].numel()
    hidden = training_flops_per_token(shell, causal=False) - training_flops_per_token(shell)
    assert grown.flops == pytest.approx(counter.get_total_flops() - n_tokens * hidden, rel=1e-12)
    assert grown.flops_masked == pytest.approx(n_tokens * hidden, rel=1e-12)


def test_a_charge_per_sample_would_be_caught() -> None:
    """The authors' counter multiplies the products of weights by the size of the batch."""
    small = trained_like(TINY)
    learned = map_of(small)
    learned.parameters()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        grown = grown_from(small)
    assert grown.flops + len(text(TINY)) * learned.flops > counter.get_total_flops()


def test_learning_lowers_the_loss_and_leaves_the_small_model_alone() -> None:
    small = trained_like(TINY)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    loss: dict[int, float] = {}
    for n_steps in (0, 100):
        model = grown_from(small, n_steps).model
        windows = text(TINY, n_windows=200, seed=999)
        flat = model(windows[:, :-1]).detach().flatten(0, 1)
        loss[n_steps] = float(torch.nn.functional.cross_entropy(flat, windows[:, 1:].flatten()))
    assert loss[100] < loss[0] - 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_the_grown_model_does_not_compute_what_the_small_one_did() -> None:
    small = trained_like(TINY)
    assert gap(logits(grown_from(small).model), logits(small)) > 1e-2
    assert not LiGO().preserves_function


@pytest.mark.parametrize("policy", StatePolicy)
def test_the_optimizer_starts_afresh_whatever_the_policy(policy: StatePolicy) -> None:
    grown = grown_from(trained_like(TINY), policy=policy)
    kept = [*grown.moments.exp_avg.values(), *grown.moments.exp_avg_sq.values()]
    assert not any(moment.any() for moment in kept)
    assert set(grown.moments.step.values()) == {0.0}
    assert all(new.all() for new in grown.is_new.values())


def test_refuses_to_learn_from_too_few_batches() -> None:
    small, target = trained_like(TINY), TINY.resized(LARGE)
    two = Resources(generator(), iter([text(TINY), text(TINY)]))
    with pytest.raises(GrowthError, match="learns from 100 batches, there are only 2"):
        LearnedMap().prepare(small, target, two)


def test_new_rows_start_as_means_or_copies_of_old_coordinates() -> None:
    small, target = trained_like(TINY), TINY.resized(LARGE)
    for rows in ("random", "selected"):
        for axis, old in {"d_model": 6, "d_ff": 10, "n_head": 12}.items():
            matrix = InitialFactors(rows=rows).draw(small, target, generator())[axis]
            first, new = matrix[..., :old, :], matrix[..., old:, :]
            assert torch.equal(first, torch.eye(old).double().expand_as(first))
            torch.testing.assert_close(new.sum(-1), torch.ones(new.shape[:-1]).double())
            assert bool(((new == 0) | (new == 1)).all()) == (rows == "selected")


@pytest.mark.parametrize(
    ("order", "sources"), [("whole", [0, 1, 0, 1]), ("interleaved", [0, 0, 1, 1])]
)
def test_blends_of_layers_start_close_to_copies(order: str, sources: list[int]) -> None:
    target = replace(TINY, n_layer=4)
    drawn = InitialFactors(order=order).draw(trained_like(TINY), target, generator())
    assert drawn["blocks.*.qkv.weight"].shape == (3, 4, 2)
    for blend in drawn.values():
        assert blend.argmax(-1).view(-1, 4).tolist() == [sources] * (blend.numel() // 8)
        assert blend.max(-1).values.min() > 0.95
        torch.testing.assert_close(blend.sum(-1), torch.ones(blend.shape[:-1]).double())


@pytest.mark.parametrize(("name", "value"), [("rows", "mean"), ("order", "stack")])
def test_refuses_an_unknown_start(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be one of .*, got '{value}'"):
        LiGO(**{name: value})  # type: ignore[arg-type]


METHOD = """
name: ligo
target: baselines.ligo:LiGO
args: {{n_steps: {n_steps}}}
ladder: {{n_growths: 1, shrink: {{d_model: 2, n_layer: 2}}}}
schedule: {{target: "benchmark.growth.schedule:AtFractions", args: {{at: [0.5]}}}}
"""


def test_bytes_and_flops_of_learning_are_charged_to_the_run(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, METHOD.format(n_steps=3))
    done = finish(run, context)
    opening = next(i for i, (spec, _) in enumerate(done) if spec.grows_from)
    source, (spec, grown) = done[opening - 1][1].end, done[opening]
    events = list(read_events(context.cache / "stages" / spec.id / "events.jsonl"))
    growth = next(event for event in events if event["kind"] == "growth")
    trained = next(e for e in events if e["kind"] == "charge" and e["what"] == "train")
    assert growth["growth_tokens"] == 3 * 4 * 32
    assert growth["growth_flops"] > 3 * spec.step_flops
    bill = next(e for e in events if e["kind"] == "charge" and e["what"] == "growth")
    whole, half = (
        training_flops_per_token(Transformer.shell(ModelConfig(**spec.model)), causal=causal)
        for causal in (False, True)
    )
    masked = growth["growth_tokens"] * (whole - half)
    assert bill["flops_unmasked"] == pytest.approx(bill["flops"] + masked, rel=1e-12)
    assert growth["flops"] == source.flops + growth["growth_flops"]
    assert grown.end.window == source.window + 4 * (3 + trained["steps"])
    assert run.budget - spec.step_flops < done[-1][1].end.flops <= run.budget


def test_a_map_that_eats_the_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GrowthError, match="leaves no step of the budget"):
        finish(*run_of(tmp_path, METHOD.format(n_steps=12)))


CPU_SUITE = ModelConfig(d_model=64, n_layer=2, n_head=4, d_head=16, d_ff=256, seq_len=128)
SOURCE = {"d_model": 48, "n_layer": 1, "n_head": 3, "d_ff": 192}


class Contest:
    """Map training and ordinary training of one large model, on the same batches."""

    def __init__(self) -> None:
        self.batches = list(torch.randint(256, (4, 8, 129), generator=generator(1)))
        self.model = Transformer(CPU_SUITE, generator=generator(2))
        self.optimizer = build_optimizer(self.model, OptimizerConfig(), Moments.zeros(self.model))
        small = Transformer(CPU_SUITE.resized(SOURCE), generator=generator(3))
        self.rule = LearnedMap(n_steps=len(self.batches))
        resources = Resources(generator(4), iter(self.batches))
        learned = self.rule.prepare(small, CPU_SUITE, resources)
        assert isinstance(learned, FactorisedMap)
        self.learned = learned

    def ordinary(self) -> None:
        """A step of the large model for every batch."""
        for batch in self.batches:
            flat = self.model(batch[:, :-1]).flatten(0, 1)
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(flat, batch[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    def learning(self) -> None:
        """A step of the map for every batch."""
        self.rule.train(self.learned, Resources(generator(4), iter(self.batches)))


@pytest.mark.slow
def test_a_step_of_the_map_takes_at_most_a_quarter_longer_than_one_of_the_large_model() -> None:
    contest, ratios = Contest(), []
    for _ in range(15):
        seconds = []
        for turn in (contest.ordinary, contest.learning):
            started = time.process_time()
            turn()
            seconds.append(time.process_time() - started)
        ratios.append(seconds[1] / seconds[0])
    assert statistics.median(ratios) <= 1.25


def saved_bytes(logits: Callable[[Tensor], Tensor], ids: Tensor) -> int:
    """Memory that the backward pass of the logits keeps."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits(ids)
    return sum(kept.values())


def test_learning_keeps_at_most_half_as_much_memory_again_as_training() -> None:
    contest = Contest()
    ids = contest.batches[0][:, :-1]
    ordinary, learning = (saved_bytes(f, ids) for f in (contest.model, contest.learned.logits))
    assert ordinary < learning <= 1.5 * ordinary


@pytest.mark.parametrize("sizes", [{"n_layer": 4}, {"d_ff": 15}, {"n_head": 6}, {"d_model": 9}])
@pytest.mark.parametrize("tied", [False, True])
def test_learning_is_charged_no_gradient_that_nothing_needs(
    sizes: dict[str, int], tied: bool
) -> None:
    """A tensor that no factor enters has none; only where d_model grows do all have one."""
    small, n_steps = trained_like(replace(TINY, tied=tied)), 2
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        grown = grown_from(small, n_steps, sizes=sizes)
    assert grown.flops + grown.flops_masked == counter.get_total_flops()
    shell, fixed = Transformer.shell(grown.model.config), map_of(small, sizes).fixed
    spared = training_flops_per_token(shell) - training_flops_per_token(shell, fixed)
    assert (spared == 0) is ("d_model" in sizes)
