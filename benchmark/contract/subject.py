"""The method under test: tiny models of every variant, and how it grows and trains them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.base.errors import ConfigError, GrowthError
from benchmark.base.plugins import PluginConfig
from benchmark.base.seeding import generator
from benchmark.data.stream import ByteStream
from benchmark.growth.grow import Grown, grow
from benchmark.growth.operator import GrowthOperator, Moments, Resources, StatePolicy, Weights
from benchmark.model.transformer import CHOICES, ModelConfig, Transformer
from benchmark.plan.guard import build_method
from benchmark.stage.batches import Batches, GrowthBatches
from benchmark.training.baseline import Baseline, Fit
from benchmark.training.loop import make_fabric, train
from benchmark.training.optim import OptimizerConfig, RateCurve, Rewarm, moments_of

SIZES = {
    "d_model": 8,
    "n_layer": 2,
    "n_head": 2,
    "d_head": 4,
    "d_ff": 12,
    "vocab_size": 13,
    "seq_len": 10,
}
FACTORS = (2.0, 3.0, 1.5)
"""Growth factors to try; a method may refuse some of them, but not all."""

EXACT = 1e-10
"""Largest change of a float64 logit that still counts as none."""

BATCH_SIZE = 4

BUDGET = 1e3
"""FLOPs of a tiny run, in which a step costs one."""


@dataclass(frozen=True)
class Verdict:
    """Whether a promise is kept, and how that was seen."""

    passed: bool
    detail: str
    """What was found, in one line."""


@dataclass(frozen=True, kw_only=True)
class Growth(Grown):
    """What a growth gave, and from which sizes."""

    before: ModelConfig

    @property
    def label(self) -> str:
        """The growth in words."""
        return describe(self.before, self.model.config)


class Subject:
    """A method under test, which trains with AdamW or another optimizer."""

    def __init__(self, plugin: PluginConfig, role: str, optimizer: str = "") -> None:
        self.plugin, self.role = plugin, role
        self.optimizer = OptimizerConfig(target=optimizer)
        self.baseline = self.build()
        self.source_class = self.baseline.source_class or self.baseline.model_class
        self.refusal = ""
        """Why the latest growth that the method refused could not be."""

    def build(self) -> Baseline:
        """A fresh instance of the method."""
        return build_method(self.plugin, "check")

    @cached_property
    def variants(self) -> list[ModelConfig]:
        """Every combination of norm, positions, activation and head that the model class has.

        Half of them, in which each goes with either choice of the others, have grouped queries, and
        another half normalised ones.
        """
        choices: dict[str, tuple[str | bool, ...]] = {**CHOICES, "tied": (False, True)}
        own, found = tuple(self.baseline.own_sizes.items()), list[ModelConfig]()
        for values in itertools.product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            other = {name: value != choices[name][0] for name, value in chosen.items()}
            more = {
                "n_query": 1 + (other["norm"] ^ other["positions"] ^ other["tied"]),
                "qk_norm": other["norm"] ^ other["activation"] ^ other["tied"],
            }
            config = ModelConfig(own=own, **{**SIZES, **chosen, **more})  # type: ignore[arg-type]
            with suppress(ConfigError):  # of an architecture that has no such variant
                self.source_class.shell(config)
                found.append(config)
        return found

    @cached_property
    def pairs(self) -> list[tuple[ModelConfig, ModelConfig]]:
        """Small and large configs, all sizes grown by one allowed factor, in half of the variants.

        In these an even number of choices differs from the first variant's, so that the half holds
        every combination of any three of the four choices.

        Raises:
            GrowthError: the method refuses every factor for every variant.
        """
        first, names = self.variants[0], (*CHOICES, "tied")
        changes = {v: sum(getattr(first, n) != getattr(v, n) for n in names) for v in self.variants}
        half = (variant for variant, n_changes in changes.items() if n_changes % 2 == 0)
        grown = {small: next(self.growths(small), None) for small in half}
        pairs = [(small, large.model.config) for small, large in grown.items() if large]
        if not pairs:
            raise GrowthError(
                f"growth by {FACTORS} of {sorted(self.baseline.grows)} is refused: {self.refusal}"
            )
        return pairs

    def corners(
        self, policy: StatePolicy | None = None, dtype: torch.dtype = torch.float64
    ) -> Iterator[Growth]:
        """Growths of the two variants that differ in every choice."""
        for small, large in (self.pairs[0], self.pairs[-1]):
            yield self.grow(self.small(small, dtype), large, policy=policy)

    def growths(self, config: ModelConfig, names: Iterable[str] = ()) -> Iterator[Growth]:
        """Growths by each factor that the method does not refuse, of all sizes if none is named."""
        small, grown = self.small(config), frozenset(names) or self.baseline.grows
        moments = first_moments(small)
        for factor in FACTORS:
            target = config.resized({name: round(config.size(name) * factor) for name in grown})
            try:
                yield self.grow(small, target, moments=moments)
            except GrowthError as error:
                self.refusal = str(error)

    def claims(self, small: ModelConfig, large: ModelConfig) -> bool:
        """Whether this growth is declared to keep the function."""
        return all(operator.keeps_function(small, large) for operator in self.baseline.operators)

    def small(self, config: ModelConfig, dtype: torch.dtype = torch.float64) -> Transformer:
        """A model with weights that look trained: no gain is one, nothing is zero."""
        model = self.source_class(config, generator=generator(0, "init")).to(dtype=dtype)
        noise = generator(0, "trained")
        with torch.no_grad():
            for weight in filter(lambda parameter: parameter.requires_grad, model.parameters()):
                weight.add_(0.2 * torch.randn(weight.shape, generator=noise, dtype=dtype))
        return model

    def grow(
        self,
        small: Transformer,
        target: ModelConfig,
        *,
        policy: StatePolicy | None = None,
        moments: Moments | None = None,
        operators: Sequence[GrowthOperator] | None = None,
        batches: Iterator[Tensor] | None = None,
    ) -> Growth:
        """Grow as a run would, always from the same seed.

        What is left out is the method's own, and Adam's state is that after one step.
        """
        grown = grow(
            small,
            moments or first_moments(small),
            target,
            self.baseline.operators if operators is None else operators,
            policy or self.baseline.state_policy,
            Resources(
                generator(0, "growth"),
                batches or GrowthBatches(self.text(target)),
                self.baseline.model_class,
            ),
        )
        return Growth(**vars(grown), before=small.config)

    def frozen(self, growth: Growth) -> tuple[str, ...]:
        """Names of the parameters that rest after a growth."""
        return self.baseline.frozen(growth.before, growth.model.config)

    @staticmethod
    def text(config: ModelConfig, first_window: int = 0) -> ByteStream:
        """Random bytes to learn from; all of them occur."""
        draw = torch.randint(config.vocab_size, (256 * config.seq_len + 1,),
                             generator=generator(0, "text"))  # fmt: skip
        return ByteStream(
            text=draw.to(torch.uint8),
            seq_len=config.seq_len,
            batch_size=BATCH_SIZE,
            seed=0,
            allow_repeats=True,
            first_window=first_window,
        )

    def begin(
        self,
        grown: Growth,
        steps: range,
        rewarm: Rewarm | None = None,
        *,
        weight_decay: float = 0.1,
    ) -> Baseline:
        """A fresh instance of the method, about to train a grown model."""
        baseline = self.build()
        baseline.begin(
            Fit(
                model=grown.model,
                moments=grown.moments,
                is_new=grown.is_new,
                frozen=self.frozen(grown),
                optimizer=replace(self.optimizer, weight_decay=weight_decay),
                rate=RateCurve(peak=6e-3, warmup_flops=1.0, decay=None),
                rewarm=rewarm,
                budget_flops=BUDGET,
                grown_at=BUDGET / 2,
                start_flops=BUDGET / 2,
                n_done=steps.start,
                step_flops=1.0,
            )
        )
        return baseline

    def train(
        self,
        grown: Growth,
        steps: range,
        rewarm: Rewarm | None = None,
        *,
        weight_decay: float = 0.1,
    ) -> Moments:
        """Train a grown model in place, as a run does; returns Adam's state."""
        baseline = self.begin(grown, steps, rewarm, weight_decay=weight_decay)
        self.fit(baseline, grown, steps)
        return moments_of(grown.model, baseline.optimizer)

    def fit(self, baseline: Baseline, grown: Grown, steps: range) -> None:
        """Take the steps with an instance that has begun."""
        stream = self.text(grown.model.config, first_window=BATCH_SIZE * steps.start)
        train(baseline, Batches(stream, len(steps)), make_fabric("cpu"))


def token_ids(config: ModelConfig) -> Tensor:
    """Random token ids with targets, int64 (4, T + 1)."""
    shape = (BATCH_SIZE, config.seq_len + 1)
    return torch.randint(config.vocab_size, shape, generator=generator(0, "ids"))


def loss(model: Transformer) -> Tensor:
    """Mean nats of random text."""
    ids = token_ids(model.config)
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def gradients_of(model: Transformer) -> Weights:
    """Gradient of that loss by parameter name, zero for what it does not reach."""
    named = dict(model.eval().named_parameters())
    free = {name: weight for name, weight in named.items() if weight.requires_grad}
    found = torch.autograd.grad(loss(model), list(free.values()), allow_unused=True)
    known = {n: g for n, g in zip(free, found, strict=True) if g is not None}
    return {name: known.get(name, torch.zeros_like(weight)) for name, weight in named.items()}


def first_moments(model: Transformer) -> Moments:
    """Adam's state after one step without averaging: the gradient and its square."""
    gradients = gradients_of(model)
    return Moments.adam(
        exp_avg=gradients,
        exp_avg_sq={name: gradient.square() for name, gradient in gradients.items()},
        step=dict.fromkeys(gradients, 10.0),
    )


@torch.no_grad()
def logits(model: Transformer) -> Tensor:
    """Logits of random text, (4, T, V)."""
    out: Tensor = model.eval()(token_ids(model.config)[:, :-1])
    return out


def tensors_of(model: Transformer, moments: Moments) -> dict[str, Tensor]:
    """Everything that a model and its Adam state consist of, by a name for messages."""
    return {
        **model.state_dict(),
        **dict(model.named_buffers()),
        **{f"the first moment of {name}": tensor for name, tensor in moments.exp_avg.items()},
        **{f"the second moment of {name}": tensor for name, tensor in moments.exp_avg_sq.items()},
    }


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> str | None:
    """Name of a tensor that is not the same in both, whatever its precision."""
    return next((n for n, a in one.items() if not torch.equal(a, other[n].to(a.dtype))), None)


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference of an entry; infinite if one is not a number."""
    return float((a - b.reshape(a.shape)).abs().nan_to_num(torch.inf).max())


def describe(small: ModelConfig, large: ModelConfig) -> str:
    """A growth in words: its variant, and the sizes that change."""
    sizes = [
        f"{name} {old} -> {large.size(name)}"
        for name, old in small.sizes().items()
        if large.size(name) != old
    ]
    head = "tied" if small.tied else "untied"
    queries = ["grouped queries"] * (small.n_query > 1) + ["qk_norm"] * small.qk_norm
    return ", ".join([*sizes, small.norm, small.positions, small.activation, head, *queries])
