"""How long stages would take on a machine that is not there: peak, assumed utilisation, launches.

A training step takes the time of its arithmetic at an assumed share of the machine's peak, or, if
that is longer, the time to launch the operations of its blocks: small models on a large GPU wait
for launches. Scoring a byte is a third of training on it. Nothing here is measured; `probe` is.
"""

from dataclasses import dataclass

from benchmark.base.errors import ConfigError
from benchmark.plan.config import MachineConfig
from benchmark.plan.spec import StageSpec
from benchmark.session.probe import Speed


@dataclass(frozen=True)
class Machine:
    """The cost model of one machine."""

    config: MachineConfig

    def peak(self, precision: str) -> float:
        """FLOP/s of one GPU or core.

        Raises:
            ConfigError: the machine has no figure for this precision.
        """
        if precision not in self.config.peak:
            raise ConfigError(
                f"machine {self.config.name} has no peak for precision {precision}; "
                f"it has: {', '.join(sorted(self.config.peak))}"
            )
        return self.config.peak[precision]

    def step(self, flops: float, n_layer: int, precision: str) -> float:
        """Seconds of a training step of so many FLOPs and blocks."""
        arithmetic = flops / (self.peak(precision) * self.config.utilisation)
        return max(arithmetic, n_layer * self.config.layer_seconds)

    def seconds(self, spec: StageSpec, n_steps: int) -> float:
        """Seconds of a whole stage of `n_steps` steps, its evaluations included."""
        n_layer, seq_len = int(spec.model["n_layer"]), int(spec.model["seq_len"])
        windows = int(spec.measure["batch_size"])
        scored = self.step(spec.step_flops * windows / spec.batch_size, n_layer, spec.precision)
        return Speed(
            fit=self.config.stage_seconds,
            step=self.step(spec.step_flops, n_layer, spec.precision),
            byte=scored / 3 / (windows * seq_len),
        ).stage(spec, n_steps)
