"""Whether a grown checkpoint does what was claimed: logits of both, by transformers' own classes.

Both are run on ids that the small model generates, in float32 and in the data type that the
checkpoint is stored in. "Equal" cannot mean to the bit: a grown weight is rounded once more. So
the measure is what rounding alone does to the small model's logits, and a difference several times
as large is another function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    with _model(small, torch.float32) as model:
        ids = generated_ids(model, generator(seed, "ids"))
        reference = _logits(model, ids)
        eps = max(torch.finfo(dtype).eps for dtype in (stored, torch.float32))
        _round_again(model, eps, generator(seed, "rounding"))
        rounded = _logits(model, ids)
    found = [_difference(large, ids, torch.float32, reference, rounded)]
    if stored.itemsize < torch.float32.itemsize:
        with _model(small, stored) as model:
            narrow = _logits(model, ids)
        coarser = max(rounded, reference, key=lambda other: _largest(narrow, other))
        found.append(_difference(large, ids, stored, narrow, coarser))
    return found


def _difference(
    large: Path, ids: Tensor, dtype: torch.dtype, small: Tensor, rounded: Tensor
) -> Difference:
    with _model(large, dtype) as model:
        grown = _logits(model, ids)
    return Difference(dtype, _largest(small, grown), _largest(small, rounded), float(small.std()))


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@contextmanager
def _model(folder: Path, dtype: torch.dtype) -> Iterator[Any]:
    """A checkpoint as transformers loads it.

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
    yield model.eval()


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:  # noqa: ANN401 - a class of transformers
    found: Tensor = model(ids).logits
    return found.double()


@torch.no_grad()
def _round_again(model: Any, eps: float, source: torch.Generator) -> None:  # noqa: ANN401
    """Move every weight by up to half a unit in the last place, as rounding does."""
    for weight in model.parameters():
        noise = torch.rand(weight.shape, generator=source, device="cpu").sub_(0.5)
        weight.mul_(noise.mul_(eps).add_(1.0))


def generated_ids(model: Any, source: torch.Generator) -> Tensor:  # noqa: ANN401
    """Random prompts, int64 (2, 24), continued by sampling from the model."""
    shape = (N_TEXTS, N_PROMPT)
    ids = torch.randint(model.config.vocab_size, shape, generator=source, device="cpu")
    while ids.shape[1] < N_IDS:
        shares = _logits(model, ids)[:, -1].softmax(-1)
        ids = torch.cat((ids, torch.multinomial(shares, 1, generator=source)), 1)
    return ids
