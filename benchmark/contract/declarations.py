"""What a method declares makes sense, and some growth is possible; all else comes after that."""

from benchmark.base.errors import GrowthError
from benchmark.contract.subject import Subject, Verdict

NOTHING_TO_CHECK = (
    "{} has no operators and grows nothing, which is for a control: set self.operators, or check "
    "a YAML with another role than method"
)


def declarations(subject: Subject) -> Verdict:
    """Operators say what they grow, and some growth works."""
    try:
        grows = sorted(subject.baseline.grows)
        if not grows and subject.role == "method":
            return Verdict(False, NOTHING_TO_CHECK.format(type(subject.baseline).__name__))
        for small, large in subject.pairs:
            subject.baseline.frozen(small, large)
    except GrowthError as error:
        return Verdict(False, str(error))
    return Verdict(True, f"grows {', '.join(grows)}" if grows else "grows nothing")
