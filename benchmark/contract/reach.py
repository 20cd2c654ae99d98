"""A method refuses what it does not do, and says which size it is about."""

from benchmark.base.errors import GrowthError
from benchmark.contract.subject import Subject, Verdict
from benchmark.model.transformer import ModelConfig


def refusals(subject: Subject) -> Verdict:
    """Shrinking any size, and enlarging one that is not declared, are errors that name it."""
    small, large = subject.pairs[0]
    undeclared = [name for name in small.sizes() if name not in subject.baseline.grows]
    halves = {name: size // 2 for name, size in small.sizes().items() if size > 1}
    asked = {f"shrink {n}": (n, large.resized({n: half})) for n, half in halves.items()}
    asked |= {f"enlarge {n}": (n, large.resized({n: 2 * small.size(n)})) for n in undeclared}
    for request, (name, target) in asked.items():
        if fault := _fault(subject, small, target, name):
            return Verdict(False, f"asked to {request}: {fault}")
    return Verdict(True, f"{len(asked)} requests, each answered by an error that names the size")


def _fault(subject: Subject, small: ModelConfig, target: ModelConfig, name: str) -> str | None:
    try:
        subject.grow(subject.small(small), target)
    except GrowthError as error:
        return None if name in str(error) else f"the error does not name the size: {error}"
    return f"it returns a model, and grows only {sorted(subject.baseline.grows)}"
