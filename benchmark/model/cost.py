"""What a run has spent: floating-point operations by formula, never by timing.

Two FLOPs per multiply-accumulate; a training step costs three forward passes, less where weights
are frozen. The head counts once per token, also when tied; embedding look-ups, norms, activations
and softmax are free. Attention is charged for the causal half that is needed; the unmasked value is
printed beside it.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from benchmark.model.transformer import Kind, Transformer


def attended_keys(seq_len: int, *, causal: bool = True) -> float:
    """Mean number of keys a position attends to."""
    return (seq_len + 1) / 2 if causal else float(seq_len)


def forward_flops_per_token(model: Transformer, *, causal: bool = True) -> float:
    """FLOPs of one token's forward pass at the model's full sequence length.

    Args:
        model: may be a shell without memory.
        causal: charge attention for the half that is needed.

    Returns:
        Two for each multiply-accumulate.
    """
    keys = attended_keys(model.config.seq_len, causal=causal)
    return 2 * (model.linear_macs + model.attention_macs * keys)


def training_flops_per_token(
    model: Transformer, frozen: Collection[str] = (), *, causal: bool = True
) -> float:
    """FLOPs of one token's forward and backward pass; backward is twice forward if all learn.

    A product has one gradient for each of its factors. That of a `frozen` weight is not taken, so
    with its forward pass such a product costs twice; nor is any that leads to frozen weights alone,
    so below the first weight that learns a product costs once.

    Args:
        model: may be a shell without memory.
        frozen: names of parameters that rest.
        causal: charge attention for the half that is needed.

    Returns:
        FLOPs at the model's full sequence length.
    """
    keys = attended_keys(model.config.seq_len, causal=causal)
    spared = _spared_macs(model, frozen, keys)
    return 3 * forward_flops_per_token(model, causal=causal) - 2 * spared


def _spared_macs(model: Transformer, frozen: Collection[str], keys: float) -> float:
    """Multiply-accumulates per token of the gradients that freezing makes needless.

    A model lists its parts in the order of computation; each entry of a linear map is one product.

    Returns:
        Of the backward pass alone.
    """
    parameters = dict(model.named_parameters())
    attention = 2 * model.attention_macs / model.config.n_layer * keys
    spared, learns_below = 0.0, False
    for path, part in model.parts():
        if path.endswith(".o") and not learns_below:
            spared += attention
        for name, axes in part.axes.items():
            weight = f"{path}.{name}"
            if axes.kind is Kind.MAP:
                spared += parameters[weight].numel() * ((weight in frozen) + (not learns_below))
            learns_below |= weight in parameters and weight not in frozen
    if model.head is None:
        spared += model.embed.weight.numel() * (("embed.weight" in frozen) + (not learns_below))
    return spared


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come; everything a method causes is in it, evaluation is not."""

    step: int = 0
    """Optimizer steps."""

    window: int = 0
    """Training windows read, the cursor of the data stream."""

    tokens: int = 0
    """Tokens predicted in training, each a byte unless the corpus is of others."""

    flops: float = 0.0
    seconds: float = 0.0

    def after(
        self,
        *,
        steps: int = 0,
        windows: int = 0,
        tokens: int = 0,
        flops: float = 0.0,
        seconds: float = 0.0,
    ) -> "Position":
        """The position after spending this much more."""
        return replace(
            self,
            step=self.step + steps,
            window=self.window + windows,
            tokens=self.tokens + tokens,
            flops=self.flops + flops,
            seconds=self.seconds + seconds,
        )


def affordable_steps(spent: float, until: float, step_flops: float) -> int:
    """Most steps that keep the ledger at or below `until` FLOPs."""
    return max(0, int((until - spent) // step_flops))
