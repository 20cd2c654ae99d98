"""Batches depend on seed and cursor alone; evaluation scores every byte once."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.base.errors import ConfigError, DataError, GrowthError
from benchmark.data.stream import ByteStream, evaluation_windows
from benchmark.stage.batches import GrowthBatches

sizes = st.integers(min_value=1, max_value=9)


def text(n_bytes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n_bytes,), dtype=torch.uint8, generator=generator)


def positions(n_bytes: int) -> Tensor:
    """Text whose bytes are their own offsets, for texts short enough."""
    assert n_bytes <= 256
    return torch.arange(n_bytes, dtype=torch.uint8)


def stream(n_bytes: int = 101, **changes: object) -> ByteStream:
    base = ByteStream(text=positions(n_bytes), seq_len=4, batch_size=3, seed=0)
    return replace(base, **changes)  # type: ignore[arg-type]


def rows(batches: list[Tensor]) -> list[list[int]]:
    return [row for batch in batches for row in batch.tolist()]


def test_a_batch_is_long_ids_with_one_byte_more_than_the_window() -> None:
    batch = stream()[0]
    assert batch.shape == (3, 5)
    assert batch.dtype == torch.long


def test_an_epoch_shows_every_window_once_and_predicts_no_byte_twice() -> None:
    source = stream(101, batch_size=5)
    assert source.n_windows == 25
    assert source.tokens_per_epoch == 100
    seen = rows([source[step] for step in range(5)])
    assert sorted(seen) == [list(range(k, k + 5)) for k in range(0, 100, 4)]  # cut naively
    targets = [byte for row in seen for byte in row[1:]]
    assert sorted(targets) == list(range(1, 101))
    assert seen != sorted(seen)


@settings(deadline=None)
@given(first=st.lists(sizes, max_size=4), second=st.lists(sizes, max_size=4))
def test_batch_sizes_never_change_which_bytes_come_next(
    first: list[int], second: list[int]
) -> None:
    """The cursor counts windows: counted in batches, a stage would re-read its predecessor's."""
    singly = rows([stream(255, batch_size=1)[k] for k in range(63)])
    cursor, read = 0, []
    for batch_size in first + second:
        if cursor + batch_size > 63:
            break
        read.append(stream(255).rows_at(cursor, batch_size))
        cursor += batch_size
    assert rows(read) == singly[:cursor]


def test_a_later_stage_goes_on_at_the_cursor() -> None:
    whole = rows([stream()[step] for step in range(8)])
    later = stream(first_window=6, batch_size=2)
    assert rows([stream()[0], stream()[1]]) + rows([later[step] for step in range(9)]) == whole


def test_a_batch_is_a_pure_function_of_seed_stream_and_cursor() -> None:
    source = stream(n_bytes=255)
    expected = source[7]
    assert torch.equal(stream(n_bytes=255)[7], expected)
    for step in (3, 0, 9):  # whatever is read in between
        source[step]
    assert torch.equal(source[7], expected)
    assert not torch.equal(stream(n_bytes=255, seed=1)[7], expected)
    assert not torch.equal(stream(n_bytes=255, stream="growth")[7], expected)


def test_a_second_epoch_is_refused_unless_allowed() -> None:
    source = stream(101, batch_size=5)
    source[4]
    with pytest.raises(DataError, match=r"120 .* 100: .*protocol\.allow_repeats"):
        source[5]
    with pytest.raises(DataError, match=r"protocol\.allow_repeats"):
        stream(101, batch_size=26)[0]


def test_repeats_reshuffle_and_still_show_every_window_once_per_epoch() -> None:
    source = stream(101, batch_size=3, allow_repeats=True)
    seen = rows([source[step] for step in range(25)])  # three epochs, batches straddling both ends
    epochs = [seen[:25], seen[25:50], seen[50:]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    wide = stream(101, batch_size=60, allow_repeats=True)[0]
    assert wide.tolist() == seen[:60]


def test_exactly_one_epoch_is_read() -> None:
    source = stream(101)
    source.rows_at(0, 25)
    with pytest.raises(DataError) as failure:
        source.rows_at(0, 26)
    message = str(failure.value)
    assert "104" in message
    assert "100" in message
    assert "protocol.allow_repeats" in message
    assert "\n" not in message
    stream(101, allow_repeats=True).rows_at(0, 1000)


def test_a_cursor_before_the_text_is_an_error() -> None:
    with pytest.raises(IndexError, match="-3"):
        stream()[-1]


@pytest.mark.parametrize("name", ["seq_len", "batch_size", "first_window"])
def test_impossible_sizes_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        stream(**{name: -1})


def test_text_shorter_than_a_window_is_refused() -> None:
    stream(5)
    with pytest.raises(DataError, match=r"4 tokens.*seq_len=4 needs 5"):
        stream(4)


def test_batches_leave_the_text_alone() -> None:
    source = stream(101)
    before = source.text.clone()
    source[0].zero_()
    assert torch.equal(source.text, before)


@settings(deadline=None)
@given(n_bytes=st.integers(1, 60), seq_len=sizes, batch_size=sizes)
def test_evaluation_scores_every_byte_but_the_first_once_in_order(
    n_bytes: int, seq_len: int, batch_size: int
) -> None:
    split = positions(n_bytes)
    batches = list(evaluation_windows(split, seq_len, batch_size))
    assert torch.cat([split[:0].long(), *(b[:, 1:].flatten() for b in batches)]).tolist() == list(
        range(1, n_bytes)
    )
    for batch in batches:  # consecutive bytes, so contexts are the bytes just before
        assert (batch.diff(dim=1) == 1).all()
        assert batch.shape[0] <= batch_size
        assert batch.shape[1] <= seq_len + 1


def test_only_the_tail_of_an_evaluation_is_ragged() -> None:
    shapes = [tuple(b.shape) for b in evaluation_windows(text(100), seq_len=8, batch_size=5)]
    assert shapes == [(5, 9), (5, 9), (2, 9), (1, 4)]  # 99 targets = 12 * 8 + 3


def test_a_score_does_not_depend_on_the_evaluation_batch() -> None:
    """A predictor that sees its window only: nats grow with the distance to the window's start."""
    split = text(1000)

    def bits(batch_size: int) -> float:
        return sum(
            float((batch[:, 1:] * torch.arange(1, batch.shape[1])).sum())
            for batch in evaluation_windows(split, 16, batch_size)
        )

    assert len({bits(batch_size) for batch_size in (1, 2, 7, 64, 1000)}) == 1


def test_dropping_the_tail_would_be_caught() -> None:
    """The counter-example: whole windows only, as harnesses that lose bytes have it."""
    whole = list(itertools.islice(evaluation_windows(positions(20), 8, 1), 2))
    assert sum(b[:, 1:].numel() for b in whole) + 1 != 20


def test_batches_for_growth_are_counted_and_end_with_it() -> None:
    batches = GrowthBatches(stream(batch_size=2))
    assert len([next(batches), next(batches)]) == 2
    assert batches.n_windows == 4
    batches.close()
    with pytest.raises(GrowthError, match="only growth is charged them"):
        next(batches)
