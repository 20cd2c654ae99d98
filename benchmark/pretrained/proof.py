"""Whether a grown checkpoint does what was claimed: logits of both, by transformers' own classes.

Both are run on ids that the small model generates, in the data type that the checkpoint is stored
in and in float32. For the latter each layer is widened while it runs; the weights themselves stay
where the file is. "Equal" cannot mean to the bit: a grown weight is rounded once more. So the
measure is what rounding alone does to the small model's logits, and a difference several times as
large is another function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.base.errors import CheckpointError, ConfigError
from benchmark.base.seeding import generator

N_TEXTS, N_PROMPT, N_IDS = 2, 4, 24
TIMES_ROUNDING = 4.0
"""How many times what rounding does still counts as rounding."""


@dataclass(frozen=True)
class Difference:
    """Between the logits of two models, both run in one data type."""

    dtype: torch.dtype
    largest: float
    """Largest absolute difference of two logits."""

    rounding: float
    """The same between the small model and itself with its weights rounded once more."""

    scale: float
    """Standard deviation of the small model's logits."""

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains it; NaN is explained by nothing."""
        return self.largest <= TIMES_ROUNDING * self.rounding


def check_available() -> None:
    """Refuse to start where the proof could not be made.

    Raises:
        ConfigError: transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise ConfigError(
            "the proof runs both models by transformers, which is not installed: "
            "pip install 'growbench[transformers]', or grow with --no-check"
        )


def differences(small: Path, large: Path, stored: torch.dtype, seed: int = 0) -> list[Difference]:
    """Compare two checkpoints, each loaded by itself.

    Args:
        small: folder of the one that was grown.
        large: folder of the other one.
        stored: data type of the weights.
        seed: of the ids.

    Returns:
        One in float32 and, if that is another type, one in `stored`.
    """
    loaded = min(stored, torch.float32, key=lambda dtype: dtype.itemsize)
    model = _model(small, loaded)
    narrow = _logits(model, ids := generated_ids(model, generator(seed, "ids")))
    with _widened(model):
        reference = _logits(model, ids)
    with _widened(model, torch.finfo(loaded).eps, generator(seed, "rounding")):
        rounded = _logits(model, ids)
    del model
    model, scale = _model(large, loaded), float(reference.std())
    with _widened(model):
        largest = _largest(reference, _logits(model, ids))
    found = [Difference(torch.float32, largest, _largest(reference, rounded), scale)]
    if loaded is not torch.float32:
        rounding = max(_largest(narrow, other) for other in (rounded, reference))
        found.append(Difference(loaded, _largest(narrow, _logits(model, ids)), rounding, scale))
    return found


@contextmanager
def _widened(
    model: Any,  # noqa: ANN401 - a class of transformers
    eps: float = 0.0,
    source: torch.Generator | None = None,
) -> Iterator[None]:
    """Have each layer compute in float32, its weights rounded once more where `eps` is given.

    Every weight moves by up to half a unit in the last place, as rounding does.
    """
    stored = dict[Tensor, Tensor]()

    def widen(module: nn.Module, _: object) -> None:
        for weight in module.parameters(recurse=False):
            stored[weight] = weight.data
            weight.data = weight.data.float()
            if source is not None:
                noise = torch.rand(weight.shape, generator=source, device="cpu").sub_(0.5)
                weight.data = noise.mul_(eps).add_(1.0).mul_(weight.data)

    def restore(module: nn.Module, *_: object) -> None:
        for weight in module.parameters(recurse=False):
            weight.data = stored.pop(weight)

    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    hooks += [layer.register_forward_hook(restore) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight, data in stored.items():  # of a layer that failed
            weight.data = data


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _model(folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a class of transformers
    """A checkpoint as transformers loads it: in the type of its files, its weights are views.

    Raises:
        CheckpointError: it refuses to, or some weights are not what it looks for.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - an extra
    from transformers.utils import logging  # noqa: PLC0415 - an extra

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"transformers cannot load {folder.name}: {error}") from error
    if wrong := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise CheckpointError(f"transformers does not find {wrong[0]} in {folder.name}")
    return model.eval()


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:  # noqa: ANN401 - a class of transformers
    found: Tensor = model(ids).logits
    return found.double()


def generated_ids(model: Any, source: torch.Generator) -> Tensor:  # noqa: ANN401
    """Random prompts, int64 (2, 24), continued by sampling from the model."""
    shape = (N_TEXTS, N_PROMPT)
    ids = torch.randint(model.config.vocab_size, shape, generator=source, device="cpu")
    while ids.shape[1] < N_IDS:
        shares = _logits(model, ids)[:, -1].softmax(-1)
        ids = torch.cat((ids, torch.multinomial(shares, 1, generator=source)), 1)
    return ids
