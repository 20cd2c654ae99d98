"""The best peak learning rate of scratch at several widths, with and without a rule for sizes.

    python -m tools.mup --steps 300 --widths 32 64 128 256

Trains every width at every rate under `scale: none` and `scale: mup`, in an interleaved order, and
prints the mean loss of the last tenth of the steps. Text is synthetic or a file's.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmark.growth.operator import Moments
from benchmark.model.size_rule import Scale
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.baseline import mean_nats
from benchmark.training.optim import (
    LearningRateConfig,
    OptimizerConfig,
    RateCurve,
    build_optimizer,
    clipped_step,
)

BASE = ModelConfig(d_model=64, n_layer=2, n_head=4, d_head=16, d_ff=256, seq_len=64)
BATCH_SIZE = 8
SCALES: tuple[Scale, ...] = ("none", "mup")


def of_width(d_model: int) -> ModelConfig:
    """The base, widened in proportion."""
    factor = d_model / BASE.d_model
    sizes = {name: round(BASE.size(name) * factor) for name in ("d_model", "n_head", "d_ff")}
    return BASE.resized(sizes)


def final_loss(config: ModelConfig, scale: Scale, peak: float, text: Tensor, n_steps: int) -> float:
    """Mean nats of the last tenth of the steps of one run from scratch.

    Args:
        config: sizes of the model.
        scale: rule for its rates; the peak holds at the base's width.
        peak: learning rate.
        text: uint8.
        n_steps: of which a twentieth is warm-up and 0.4 decay.
    """
    draw = torch.Generator().manual_seed(0)
    rule = LearningRateConfig(scale=scale).size_rule(BASE)
    model = Transformer(config, generator=draw)
    rule.scale_initial(model)
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model), rule)
    curve = RateCurve(peak=peak, warmup_flops=0.05 * n_steps, decay=(0.6 * n_steps, n_steps))
    losses: list[float] = []
    for step in range(n_steps):
        starts = torch.randint(len(text) - config.seq_len - 1, (BATCH_SIZE,), generator=draw)
        windows = starts[:, None] + torch.arange(config.seq_len + 1)
        nats = mean_nats(model, text[windows].long())
        nats.backward()
        for group in optimizer.param_groups:
            group["lr"] = curve.at(step + 0.5) * group["rate"]
        clipped_step(optimizer, clip=1.0)
        losses.append(float(nats.detach()))
    tail = losses[-max(1, n_steps // 10) :]
    return sum(tail) / len(tail)


def main() -> None:
    """Print a table for each rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="any file of a megabyte or more")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--powers", type=int, nargs="+", default=list(range(-10, -3)))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = torch.frombuffer(bytearray(asked.text.read_bytes()), dtype=torch.uint8)
    for scale in SCALES:
        for width in asked.widths:
            losses = {
                power: final_loss(of_width(width), scale, 2.0**power, text, asked.steps)
                for power in asked.powers
            }
            best = min(losses, key=losses.__getitem__)
            cells = "  ".join(f"2^{power}: {loss:.4f}" for power, loss in losses.items())
            print(f"{scale:5} d {width:4}  best 2^{best}  {cells}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
