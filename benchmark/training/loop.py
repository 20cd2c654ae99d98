"""The training loop of every method: for each batch forward, backward and one update.

Lightning's Fabric provides the device and the precision. Everything else that happens in a step is
written here and in `Baseline.update`.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmark.training.baseline import Baseline

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(device: str, precision: str = "32-true") -> "Fabric":
    """What brings a model and its batches to a device.

    Args:
        device: kind of device, "cpu" or "cuda".
        precision: as Fabric names it, or "tf32".
    """
    # takes three seconds, for which nothing waits that only plans or lists
    from lightning_fabric import Fabric  # noqa: PLC0415
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment  # noqa: PLC0415

    fabric = Fabric(
        accelerator=device,
        devices=1,
        plugins=[LightningEnvironment()],  # does not look for a cluster
        precision="32-true" if precision == "tf32" else precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def train(baseline: Baseline, batches: Iterable[Tensor], fabric: "Fabric") -> None:
    """Take a step with each batch.

    Args:
        baseline: a method that has begun a fit.
        batches: token ids, int64 (M, B, T + 1): M micro-batches, whose gradients add up.
        fabric: the device and the precision.
    """
    # imports Lightning, for which nothing waits that only plans or lists
    from benchmark.training.lightning import LightningMethod  # noqa: PLC0415

    loss_of = fabric.setup_module(LightningMethod(baseline))
    loss_of.train()
    for batch in batches:
        started = time.perf_counter()
        losses = []
        for ids in _on_device(batch, fabric.device):
            loss = loss_of(ids) / len(batch)
            fabric.backward(loss)
            losses.append(loss.detach())
        baseline.update()
        baseline.fit_spec.on_step(sum(losses[1:], losses[0]), started)


def _on_device(batch: Tensor, device: torch.device) -> Tensor:
    """The batch on the device; a GPU fetches it from pinned memory while it still computes."""
    if device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)
