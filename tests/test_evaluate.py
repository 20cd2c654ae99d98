"""The evaluator charges every byte once, whatever the batch size, and touches nothing."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tiny import TINY, every_variant, generator, trained_like
from torch import Tensor
from typing_extensions import override

from benchmark.data.tokens import BYTES as BYTE_TOKENS
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.evaluate import Score, score

BYTES = replace(TINY, vocab_size=256)


class Bigram(Transformer):
    """A model whose code length is known: the next byte depends on the last one alone."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        table = torch.randn(256, 256, generator=generator(9), dtype=torch.float64)
        return 3 * table[ids_BT]


class Cheat(Bigram):
    """Broken on purpose: it reads the byte after the one that it is asked to predict."""

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        return super().forward(ids_BT.roll(-2, dims=1))


def corpus(n_bytes: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (n_bytes,), dtype=torch.uint8, generator=generator(seed))


def bigram_nats(split: list[int]) -> list[float]:
    """Code length of each byte under `Bigram`, summed with `math.log` and no windows."""
    table = (3 * torch.randn(256, 256, generator=generator(9), dtype=torch.float64)).tolist()
    nats = [math.log(256)]
    for before, byte in itertools.pairwise(split):
        nats.append(math.log(math.fsum(map(math.exp, table[before]))) - table[before][byte])
    return nats


def uniform() -> Transformer:
    """All logits are zero."""
    model = Transformer(BYTES, generator=generator()).double()
    assert model.head is not None
    torch.nn.init.zeros_(model.head.get_parameter("weight"))
    return model


def test_a_model_that_knows_nothing_needs_eight_bits_per_byte() -> None:
    assert score(uniform(), corpus(500), 4).bits_per_byte == pytest.approx(8, abs=1e-12)
    assert score(uniform().float(), corpus(500), 4).bits_per_byte == pytest.approx(8, abs=1e-6)


@pytest.mark.parametrize("seq_len", [1, 3, 7, 299, 300, 1000])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_known_code_length_is_found_for_any_window_and_batch(
    seq_len: int, batch_size: int
) -> None:
    split = corpus(300)
    found = score(Bigram(replace(BYTES, seq_len=seq_len)), split, batch_size)
    expected = bigram_nats(split.tolist())
    assert found.nats.dtype == torch.float64
    torch.testing.assert_close(found.nats, torch.tensor(expected, dtype=torch.float64))
    bits = math.fsum(expected) / math.log(2) / 300
    assert found.bits_per_byte == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("n_bytes", [1, 2, 6, 7, 8, 9, 14, 15, 100])
def test_every_byte_is_scored_once_however_short_the_text(n_bytes: int) -> None:
    split = corpus(n_bytes)
    found = score(Bigram(BYTES), split, 3)
    assert found.n_bytes == n_bytes
    assert found.nats.tolist() == pytest.approx(bigram_nats(split.tolist()))


@every_variant
def test_the_score_does_not_depend_on_the_batch_size(config: ModelConfig) -> None:
    model = trained_like(replace(config, vocab_size=256))
    scores = [score(model, corpus(200), batch_size).nats for batch_size in (1, 3, 64)]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=0, atol=1e-12)


def test_a_mean_of_batch_means_would_depend_on_it() -> None:
    nats = score(trained_like(BYTES), corpus(200), 64).nats
    means = [torch.stack([part.mean() for part in nats.split(n)]).mean() for n in (7, 64)]
    assert abs(float(means[0] - means[1])) > 1e-3


def moved_by(model: Transformer, position: int) -> set[int]:
    """Bytes whose code length changes when the byte at `position` does."""
    split = corpus(60)
    before = score(model, split, 4).nats
    split[position] += 1
    return set((score(model, split, 4).nats != before).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("position", [1, 6, 7, 8, 59])
def test_a_byte_is_predicted_from_its_window_and_nothing_after_it(position: int) -> None:
    last = min(59, -(-(position + 1) // 7) * 7)  # the window that reads it predicts up to here
    assert moved_by(trained_like(BYTES), position) == set(range(position, last + 1))


def test_a_model_that_looks_ahead_is_noticed() -> None:
    assert min(moved_by(Cheat(BYTES), 5)) < 5


def test_blocks_add_up_to_the_whole() -> None:
    found = score(trained_like(BYTES), corpus(100), 4)
    sizes, nats = found.blocks(32)
    assert sizes == [32, 32, 32, 4]
    assert math.fsum(nats) / 100 / math.log(2) == pytest.approx(found.bits_per_byte, abs=1e-12)
    assert nats[-1] == pytest.approx(math.fsum(found.nats.tolist()[-4:]))
    assert found.blocks(1000)[0] == [100]


def test_bits_are_counted_per_byte_whatever_tokens_stand_for() -> None:
    nats = torch.tensor([3.0, 1.0, 2.0, 4.0]).double()
    found = Score(nats, torch.tensor([1, 4, 2, 3]))
    assert found.n_bytes == 10
    assert found.bits_per_byte == pytest.approx(10.0 / 10 / math.log(2), rel=1e-15)
    assert found.bits_per_byte != Score(nats, torch.ones(4).long()).bits_per_byte
    # tokens begin at bytes 0, 1, 5 and 7: one of them reaches into the next block
    assert found.blocks(3) == ([5, 2, 3], [4.0, 2.0, 4.0])
    assert found.blocks(100) == ([10], [10.0])


def test_a_byte_is_a_token_of_one() -> None:
    ids = torch.tensor([0, 10, 255], dtype=torch.uint8)
    assert BYTE_TOKENS.byte_counts(ids).tolist() == [1, 1, 1]
    assert torch.equal(BYTE_TOKENS.first(ids, 2), ids[:2])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = trained_like(BYTES).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    found = score(model, corpus(50), 4)
    assert {module.training for module in model.modules()} == {training}
    assert all(torch.equal(model.state_dict()[name], old) for name, old in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not found.nats.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


def test_a_model_can_be_trained_between_two_scores() -> None:
    model, split = trained_like(BYTES), corpus(50)
    before = score(model, split, 4).bits_per_byte
    model(split[None, :7].long()).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=0.1)
    assert score(model, split, 4).bits_per_byte != before
