"""The model predicts from the past alone, and its score is that of its predictions."""

import torch
from torch import Tensor

from benchmark.contract.subject import EXACT, Subject, Verdict, describe, distance, token_ids
from benchmark.model.transformer import Transformer
from benchmark.training.evaluate import score


def causality(subject: Subject) -> Verdict:
    """Prefix logits do not depend on the suffix or on other rows; the score is their log loss.

    The reference evaluates byte by byte, each from a prefix that ends before it, and normalises
    by itself, so nothing a model does with what it should not see can lower its score.
    """
    for growth in subject.corners():
        for probed in (subject.small(growth.before), growth.model):
            if fault := _fault(probed.eval()):
                return Verdict(False, f"{fault}: {describe(growth.before, probed.config)}")
    return Verdict(True, "small and grown")


@torch.no_grad()
def _fault(model: Transformer) -> str | None:
    ids = token_ids(model.config)[:, :-1]
    shape = (*ids.shape, model.config.vocab_size)
    whole: Tensor = model(ids)
    if whole.shape != shape or not whole.isfinite().all():
        return f"logits must be finite and of shape {shape}, got {tuple(whole.shape)}"
    last = model.config.seq_len - 1
    for length in sorted({1, 2, 3, 7, 8, last} & set(range(1, last + 1))):
        changed = ids.clone()
        changed[:, length:] = (changed[:, length:] + 1) % model.config.vocab_size
        if distance(model(changed)[:, :length], whole[:, :length]) > EXACT:
            return f"logits of the first {length} tokens depend on later ones"
    others = ids.clone()
    others[1:] = ids[1:].flip(1)
    if distance(model(others)[0], whole[0]) > EXACT:
        return "logits of a text depend on other texts of its batch"
    text = token_ids(model.config).flatten()[: 5 * model.config.seq_len // 2].to(torch.uint8)
    if distance(score(model, text, batch_size=2).nats[1:], _byte_by_byte(model, text)) > EXACT:
        return "the score is not the log loss of predictions made byte by byte"
    return None


def _byte_by_byte(model: Transformer, text: Tensor) -> Tensor:
    """Nats of every byte but the first, by a naive loop."""
    nats = []
    for i in range(1, len(text)):
        start = (i - 1) // model.config.seq_len * model.config.seq_len
        logits = model(text[None, start:i].long())[0, -1]
        nats.append(logits.exp().sum().log() - logits[int(text[i])])
    return torch.stack(nats).double()
