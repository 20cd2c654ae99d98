"""How a method trains at each of its sizes, where it does so in a way of its own (ADR 0036).

Every method shares the suite's learning rate over the whole budget and its training text. A recipe
that is published with another schedule may anneal its source, begin a new warm-up and a new
schedule after growth, or read another text at some size; the plan and the report say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from benchmark.base.annotations import In, Positive
from benchmark.base.errors import ConfigError
from benchmark.data.corpora import CorpusConfig
from benchmark.training.optim import LearningRateConfig, RateCurve


@dataclass(frozen=True, kw_only=True)
class OwnRate:
    """Warm-up, constant rate and decay of one size, instead of the suite's and of re-warming."""

    peak: Positive = 1.0
    """As a multiple of the suite's peak rate."""

    warmup: Annotated[float, In("(0, 1)")] | None = None
    """Length of the warm-up as a fraction of what is spent at this size; None for the suite's."""

    decay: Annotated[float, In("[0, 1]")] = 1.0
    """Length of the decay as a fraction of what is spent at this size; it follows the warm-up in
    any case, and 0 means that the rate stays."""

    shape: Literal["linear", "cosine"] = "linear"
    floor: Annotated[float, In("[0, 1)")] = 0.0
    """Rate that the decay ends with, as a fraction of the peak."""

    def curve(
        self, shared: LearningRateConfig, budget_flops: float, start: float, end: float
    ) -> RateCurve:
        """The learning rate of a size that lasts from `start` to `end`, in FLOPs of the run."""
        warmup = shared.warmup * budget_flops
        if self.warmup is not None:
            warmup = self.warmup * (end - start)
        decay_start = max(start + warmup, end - self.decay * (end - start))
        return RateCurve(
            peak=self.peak * shared.peak,
            start=start,
            warmup_flops=warmup,
            decay=(decay_start, end) if decay_start < end else None,
            shape=self.shape,
            floor=self.floor,
        )


@dataclass(frozen=True, kw_only=True)
class OwnStage:
    """What a method does in its own way at one size."""

    rate: OwnRate | None = None
    """Its learning rate; None for the suite's."""

    corpus: CorpusConfig | None = None
    """Whose training text it reads; None for the suite's. Every model is scored on the suite's."""


def check_stages(
    stages: Sequence[OwnStage], times: Sequence[float] | None, n_growths: int, where: str
) -> None:
    """Refuse stages that do not fit the sizes, or that cannot be planned.

    Raises:
        ConfigError: too few or too many, growth at times that only the loss decides (`times` is
            None), or a corpus that is not known by its bytes.
    """
    if stages and len(stages) != n_growths + 1:
        raise ConfigError(
            f"{where}.stages must have one entry for each of the {n_growths + 1} sizes, "
            f"got {len(stages)}"
        )
    if times is None and n_growths and any(stage.rate for stage in stages):
        raise ConfigError(
            f"{where}.stages: a rate of a stage's own takes a schedule that knows its times, such "
            "as benchmark.schedule:AtFractions"
        )
    for corpus in (stage.corpus for stage in stages):
        if corpus is not None and not (corpus.size and corpus.sha256):
            raise ConfigError(
                f"{where}.stages: corpus {corpus.name} must state its size and sha256"
            )


def train_bytes(corpus: CorpusConfig) -> int:
    """Length of a corpus's training text, which its manifest states."""
    return corpus.splits.offsets(corpus.size)[0]
