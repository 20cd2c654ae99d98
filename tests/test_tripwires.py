"""Held-out text that stands in the training text is found, all of it and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_suite import prepare

from benchmark.data import tripwires as module
from benchmark.data.corpora import CorpusConfig, Splits
from benchmark.data.tripwires import SHORTEST, WINDOWS, Bytes, overlap, tripwires
from benchmark.plan.config import load_corpus, load_suite
from benchmark.session.session import Session


def random_text(n: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8)


def naive_windows(train: bytes, held_out: bytes, length: int) -> int:
    starts = range(len(held_out) - length + 1)
    return sum(held_out[i : i + length] in train for i in starts)


def naive_longest(train: bytes, held_out: bytes) -> int:
    longest = 0
    for start in range(len(held_out)):
        while held_out[start : start + longest + 1] in train and start + longest < len(held_out):
            longest += 1
    return longest


def as_bytes(text: bytes) -> Bytes:
    return np.frombuffer(text, dtype=np.uint8)


def test_a_planted_passage_is_found_exactly() -> None:
    train, held_out = random_text(50_000, 0), random_text(20_000, 1)
    held_out[7_000:7_200] = train[30_000:30_200]
    held_out[7_200], held_out[6_999] = train[30_200] ^ 1, train[29_999] ^ 1
    found = overlap(train, held_out)
    assert (found.longest, found.offset, found.train_offset) == (200, 7_000, 30_000)
    assert found.windows_in_train == {32: 169, 64: 137, 128: 73}
    assert found.shares_in_train[64] == 137 / (20_000 - 63)


def test_random_text_has_nothing_in_common() -> None:
    found = overlap(random_text(50_000, 0), random_text(20_000, 1))
    assert found.windows_in_train == dict.fromkeys(WINDOWS, 0)
    assert (found.longest, found.offset, found.train_offset) == (0, None, None)


def test_a_passage_one_byte_too_short_is_not_looked_for() -> None:
    train, held_out = random_text(5_000, 0), random_text(2_000, 1)
    held_out[100 : 100 + SHORTEST - 1] = train[: SHORTEST - 1]
    held_out[100 + SHORTEST - 1] = train[SHORTEST - 1] ^ 1
    assert overlap(train, held_out).longest == 0
    held_out[100 + SHORTEST - 1] ^= 1
    assert overlap(train, held_out).longest == SHORTEST


def test_training_text_is_read_across_the_borders_of_its_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, held_out = random_text(5_000, 0), random_text(2_000, 1)
    held_out[500:700] = train[950:1_150]
    whole = overlap(train, held_out)
    monkeypatch.setattr(module, "PIECE", 333)
    assert overlap(train, held_out) == whole
    assert whole.longest == 200


@given(
    parts=st.lists(st.sampled_from([b"a" * 40, b"b" * 9, b"\xff" * 33, b"abcdefg", b"\0"])),
    others=st.lists(st.sampled_from([b"a" * 70, b"b", b"\xff" * 50, b"gfedcba", b"\0" * 3])),
)
def test_agrees_with_a_naive_search(parts: list[bytes], others: list[bytes]) -> None:
    held_out, train = b"".join([*parts, b".."]), b"".join([b"..", *parts[:3], *others])
    found, longest = overlap(as_bytes(train), as_bytes(held_out)), naive_longest(train, held_out)
    assert found.longest == (longest if longest >= SHORTEST else 0)
    assert found.windows_in_train == {n: naive_windows(train, held_out, n) for n in WINDOWS}
    if found.offset is not None and found.train_offset is not None:
        passage = held_out[found.offset : found.offset + found.longest]
        assert train[found.train_offset :].startswith(passage)


def test_text_that_repeats_without_end_takes_no_longer() -> None:
    found = overlap(np.zeros(200_000, dtype=np.uint8), np.zeros(100_000, dtype=np.uint8))
    assert found.longest == 100_000
    assert found.shares_in_train == dict.fromkeys(WINDOWS, 1.0)


def test_what_was_found_is_kept_beside_the_text(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(random_text(3_000, 0).tobytes())
    config = CorpusConfig(
        name="toy",
        kind="file",
        source="",
        licence="",
        path=str(path),
        splits=Splits(val_start=2_000, test_start=2_500),
    )
    found = tripwires(config, tmp_path)
    assert found["entropy_rate_bits"] is None
    assert found["val"]["windows_in_train"] == dict.fromkeys(map(str, WINDOWS), 0)
    assert found["test"]["n_bytes"] == 500
    (kept,) = (tmp_path / "toy").glob("*.json")
    kept.write_text(json.dumps({"val": "kept", "test": "too"}))
    assert tripwires(config, tmp_path)["val"] == "kept"
    moved = replace(config, splits=Splits(val_start=1_999, test_start=2_500))
    assert tripwires(moved, tmp_path)["val"]["n_bytes"] == 501


def test_the_limit_of_a_synthetic_source_is_told(tmp_path: Path) -> None:
    config = replace(load_corpus("synthetic"), size=20_000, sha256="")
    found = json.loads(json.dumps(tripwires(config, tmp_path)))
    assert found["entropy_rate_bits"] == pytest.approx(1.8802, abs=5e-5)


@pytest.mark.slow
def test_a_run_writes_what_its_held_out_text_shares_with_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    text = bytearray((tmp_path / "letters.txt").read_bytes())
    text[184_999:185_201] = b"!" + text[1_000:1_200] + b"!"
    (tmp_path / "letters.txt").write_bytes(text)
    Session(load_suite("tiny.yaml", ["methods=[scratch]"])).execute(lambda _: None)
    found = json.loads((tmp_path / "results/local/tiny/corpus.json").read_text())
    assert (found["val"]["longest"], found["test"]["longest"]) == (200, 0)
    assert (found["val"]["offset"], found["val"]["train_offset"]) == (5_000, 1_000)
