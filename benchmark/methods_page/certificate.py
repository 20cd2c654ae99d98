"""What the contract measures of a method, and what its growth is charged in a suite."""

import itertools
from dataclasses import dataclass
from itertools import pairwise

import torch

from benchmark.base.seeding import generator
from benchmark.contract.exactness import changes
from benchmark.contract.learning import distances, movements
from benchmark.contract.subject import Subject
from benchmark.data.stream import ByteStream
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources
from benchmark.methods_page.claims import declared
from benchmark.plan.run import Run

N_RANDOM_BYTES = 1 << 20


@dataclass(frozen=True)
class Certificate:
    """What is measured on tiny models of every variant; None where there is nothing to measure."""

    grows: tuple[str, ...]
    exact: str
    """Where growth is declared to keep the function, see `claims.declared`."""

    error: float | None
    """Largest change of a float64 logit where exactness is declared."""

    change: float | None
    """Smallest one where it is not."""

    coverage: float | None
    """Share of new entries that a gradient has moved after 20 steps."""

    may_be_dead: bool
    """Whether it is declared that some never move."""

    distance: float | None
    """Smallest distance of two copies after 50 steps, relative to their length."""

    may_be_equal: bool
    """Whether it is declared that some copies never separate."""


def certificate(subject: Subject) -> Certificate:
    """Measure a method; what a check of the same subject has measured is not measured again."""
    growths = [change for change in changes(subject) if change.large != change.small]
    moved = movements(subject)
    n_new, n_still = sum(m.n_new for m in moved), sum(m.n_new_still for m in moved)
    return Certificate(
        grows=tuple(sorted(subject.baseline.grows)),
        exact=declared(growths),
        error=max((g.error for g in growths if g.is_claimed), default=None),
        change=min((g.error for g in growths if not g.is_claimed), default=None),
        coverage=1 - n_still / n_new if n_new else None,
        may_be_dead=subject.baseline.leaves_dead_entries,
        distance=min(distances(subject).values(), default=None),
        may_be_equal=subject.baseline.leaves_copies_equal,
    )


def growth_flops(run: Run) -> float:
    """FLOPs that the ledger of a run is charged for making its growths.

    Models are fresh and text is random: neither changes the cost.
    """
    suite = run.suite
    text = torch.randint(256, (N_RANDOM_BYTES,), generator=generator(0, "text"))
    stream = ByteStream(
        text=text.to(torch.uint8),
        seq_len=suite.workload.target.seq_len,
        batch_size=suite.workload.batch_size,
        seed=0,
    )
    spent = 0.0
    model_class = run.baseline.source_class or run.baseline.model_class
    for small, large in pairwise(run.sizes):
        model = model_class(small, generator=generator(0, "init"))
        resources = Resources(
            generator(0, "growth"),
            (stream[i] for i in itertools.count()),
            run.baseline.model_class,
        )
        grown = grow(
            model, Moments.zeros(model), large, run.baseline.operators, run.policy, resources
        )
        spent, model_class = spent + grown.flops, run.baseline.model_class
    return spent
