"""Width by copies whose noise and rates follow the width (mu-pscaling, 2026, arXiv:2602.10545).

Every coordinate is repeated and its readers are divided by the number of copies, as in Net2Net;
then `noise` times the initial weights of a new model of the large size is added to all matrices.
Under muP the noise, too, has the size that is right at every width. Without noise the large model
computes what the small one would have throughout training: it must break the symmetry. Compared
with the authors' code (yuxinma98/mupscaling, commit 78f1809).

After growth: moments grow as gradients do, and maps learn at the rate of the large size. The rates
are the suite's, so all this holds under `protocol.learning_rate.scale: mup` only.

Deviations: heads are repeated where theirs grow wider, and readers of copied heads are divided;
Adam's epsilon stays, where theirs shrinks with the gradients; their hidden matrices divide the
noise once more by the number of copies; gradients are clipped, by norms that differ with the width;
the head divides its weights, where theirs has a factor on its output. The size of the noise is to
be tuned on a smaller pair; its default is a guess.
"""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from baselines.parts.copies import Copies
from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import AxisMap, StatePolicy, Weights, WidthTransfer
from benchmark.model import Kind


class _Noisy(WidthTransfer):
    operator: "NoisyCopies"

    @override
    def repeated(self, name: str) -> dict[int, AxisMap]:
        return {}  # where noise that cancels would go

    @override
    def needs_fresh(self, name: str) -> bool:
        return bool(self.operator.noise) and self.axes[name].kind in (Kind.MAP, Kind.TABLE)

    @override
    def weight(self, name: str, small: Weights, fresh: Weights) -> Tensor:
        weight = super().weight(name, small, fresh)
        if not self.needs_fresh(name):
            return weight
        return fresh[name].view_as(weight).mul_(self.operator.noise).add_(weight)


@dataclass(frozen=True)
class NoisyCopies(Copies):
    """Whole multiples of every width, beside `noise` times a new model's initial weights."""

    transfer = _Noisy

    @property
    @override
    def preserves_function(self) -> bool:  # type: ignore[override]
        return self.noise == 0


class MupWidth(Baseline):
    """Grow widths by whole multiples.

    Args:
        noise: standard deviation relative to that of initial weights.
    """

    state_policy = StatePolicy.SCALED

    def __init__(self, noise: float = 0.25) -> None:
        super().__init__()
        if not noise >= 0:
            raise ConfigError(f"noise must be at least 0, got {noise}")
        self.operators = (NoisyCopies(noise),)

    @property
    @override
    def leaves_copies_equal(self) -> bool:
        return self.operators[0] == NoisyCopies(0)
