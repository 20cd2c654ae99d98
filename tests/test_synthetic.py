"""The synthetic source writes text whose entropy rate is what it says."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from benchmark.base.errors import ConfigError
from benchmark.data.synthetic import MarkovSource
from benchmark.plan.reading import filled

SOURCE = MarkovSource()
SIZE = 400_000


def as_tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def conditional_entropy(text: bytes, order: int) -> float:
    """Plug-in estimate in bits, counted naively."""
    grams = Counter(text[i : i + order + 1] for i in range(len(text) - order))
    contexts = Counter(text[i : i + order] for i in range(len(text) - order))
    total = sum(grams.values())
    return -sum(n / total * math.log2(n / contexts[gram[:order]]) for gram, n in grams.items())


def test_entropy_rate_of_a_chain_worked_by_hand() -> None:
    source = MarkovSource(order=1, n_symbols=2, n_favoured=1, weight=2)
    p = source.probabilities
    assert ((p == 0.25) | (p == 0.75)).all()  # counts 1 and 1 + 2
    q = 0.25 * math.log2(4) + 0.75 * math.log2(4 / 3)  # both rows have this entropy
    assert source.entropy_rate_bits() == pytest.approx(q, abs=1e-12)


def test_without_favourites_every_symbol_costs_the_same() -> None:
    assert MarkovSource(n_symbols=8, weight=0).entropy_rate_bits() == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_stationary_distribution_is_left_alone_by_a_step(order: int) -> None:
    source = MarkovSource(order=order, n_symbols=6)
    pi = source.stationary()
    after = torch.zeros_like(pi)
    for context, row in enumerate(source.probabilities):  # a naive walk over the chain
        for symbol, p in enumerate(row):
            after[(context * 6 + symbol) % 6**order] += pi[context] * p
    assert pi.min() > 0
    assert float(pi.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(after, pi, rtol=0, atol=1e-14)


def test_the_text_has_the_entropy_it_says_and_needs_the_whole_context() -> None:
    text, rate = SOURCE.sample(SIZE), SOURCE.entropy_rate_bits()
    assert rate == pytest.approx(1.8802, abs=1e-4)  # configs/corpus/synthetic.yaml quotes it
    assert conditional_entropy(text, 2) == pytest.approx(rate, abs=0.01)
    assert conditional_entropy(text, 1) > rate + 1
    assert conditional_entropy(text, 0) > rate + 2


def bits_per_byte(source: MarkovSource, text: Tensor) -> float:
    """Mean -log2 p of each byte of a text under a chain of order 2, after the first two."""
    symbols = text.long() - ord("a")
    contexts = symbols[:-2] * source.n_symbols + symbols[1:-1]
    return float(-source.probabilities[contexts, symbols[2:]].log2().mean())


def test_the_oracle_scores_the_rate_and_other_text_scores_worse() -> None:
    text, rate = as_tensor(SOURCE.sample(SIZE)), SOURCE.entropy_rate_bits()
    assert bits_per_byte(SOURCE, text) == pytest.approx(rate, abs=0.01)
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))
    assert bits_per_byte(SOURCE, text[order]) > rate + 2
    assert bits_per_byte(MarkovSource(seed=1), text) > rate + 2


def test_context_frequencies_are_the_stationary_distribution() -> None:
    source = MarkovSource(order=1, n_symbols=5)
    text = as_tensor(source.sample(SIZE)).long() - ord("a")
    observed = text.bincount(minlength=5) / SIZE
    torch.testing.assert_close(observed.double(), source.stationary(), rtol=0, atol=0.005)


def test_the_text_is_a_function_of_the_seed_and_grows_at_its_end() -> None:
    assert SOURCE.sample(1000) == MarkovSource().sample(2000)[:1000]
    assert len(SOURCE.sample(1000)) == 1000
    assert SOURCE.sample(1000) != MarkovSource(seed=1).sample(1000)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"order": 0}, "order must be a whole number"),
        ({"n_symbols": 1}, "n_symbols must be a whole number"),
        ({"n_symbols": 200}, "n_symbols must be a whole number"),
        ({"n_favoured": 0}, "n_favoured must be a whole number"),
        ({"weight": -1}, "weight must be a whole number"),
        ({"order": 4}, "corpus.markov: n_symbols"),
    ],
)
def test_an_impossible_source_is_refused_by_key(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        filled(MarkovSource, ("", sizes))
