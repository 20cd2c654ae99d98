"""What a method declares makes sense, and some growth is possible; all else comes after that."""

from benchmark.base.errors import GrowthError
from benchmark.contract.subject import Subject, Verdict
from benchmark.growth.grow import grown_sizes

NOTHING_TO_CHECK = (
    "{} has no operators and grows nothing, which is for a control: set self.operators, or check "
    "a YAML with another role than method"
)


def declarations(subject: Subject) -> Verdict:
    """Operators say what they grow, a method grows no more than they do, and some growth works."""
    try:
        declared, grown = (
            subject.baseline.grows,
            grown_sizes(subject.baseline.operators, subject.baseline.own_sizes),
        )
        if nobody := sorted(declared - grown):
            fault = f"declares to grow {nobody}, but its operators grow {sorted(grown)}"
            return Verdict(False, f"{type(subject.baseline).__name__} {fault}")
        if not declared and subject.role == "method":
            return Verdict(False, NOTHING_TO_CHECK.format(type(subject.baseline).__name__))
        for small, large in subject.pairs:
            subject.baseline.frozen(small, large)
    except GrowthError as error:
        return Verdict(False, str(error))
    return Verdict(True, f"grows {', '.join(sorted(declared))}" if declared else "grows nothing")
