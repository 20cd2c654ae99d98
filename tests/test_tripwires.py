"""Held-out text that stands in the training text is found, all of it and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_suite import prepare

from benchmark.data.corpora import CorpusConfig, Splits
from benchmark.data.tokens import Bytes
from benchmark.data.tripwires import WINDOW, fingerprints, overlaps, tripwires
from benchmark.plan.config import load_corpus, load_suite
from benchmark.session.session import Session


def random_text(n: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8)


def overlap(train: Bytes, held_out: Bytes) -> dict[str, float]:
    return overlaps([train], {"val": held_out})["val"]


def as_bytes(text: bytes) -> Bytes:
    return np.frombuffer(text, dtype=np.uint8)


def naive_windows(train: bytes, held_out: bytes) -> int:
    starts = range(len(held_out) - WINDOW + 1)
    return sum(held_out[i : i + WINDOW] in train for i in starts)


def test_a_planted_passage_is_found_exactly() -> None:
    train, held_out = random_text(50_000, 0), random_text(20_000, 1)
    held_out[7_000:7_200] = train[30_000:30_200]
    held_out[7_200], held_out[6_999] = train[30_200] ^ 1, train[29_999] ^ 1
    found = overlap(train, held_out)
    assert found["windows_in_train"] == 200 - WINDOW + 1
    assert found["share_in_train"] == (200 - WINDOW + 1) / (20_000 - WINDOW + 1)


def test_random_text_has_nothing_in_common_and_neither_has_too_short_a_passage() -> None:
    train, held_out = random_text(50_000, 0), random_text(20_000, 1)
    held_out[100 : 100 + WINDOW - 1] = train[: WINDOW - 1]
    held_out[100 + WINDOW - 1] = train[WINDOW - 1] ^ 1
    assert overlap(train, held_out)["windows_in_train"] == 0
    held_out[100 + WINDOW - 1] ^= 1
    assert overlap(train, held_out)["windows_in_train"] == 1
    assert overlap(train, held_out[:50]) == {
        "n_bytes": 50, "windows_in_train": 0, "share_in_train": 0.0,
    }  # fmt: skip


def test_training_text_is_read_across_the_borders_of_its_pieces() -> None:
    train, held_out = random_text(5_000, 0), random_text(2_000, 1)
    held_out[500:700] = train[950:1_150]
    whole = overlap(train, held_out)
    for n in (1, 50, 333):
        pieces = [train[i : i + n] for i in range(0, len(train), n)]
        assert overlaps(pieces, {"val": held_out})["val"] == whole
    assert whole["windows_in_train"] == 200 - WINDOW + 1


@given(
    parts=st.lists(st.sampled_from([b"a" * 150, b"b" * 9, b"\xff" * 133, b"abcdefg", b"\0"])),
    others=st.lists(st.sampled_from([b"a" * 70, b"b", b"\xff" * 150, b"gfedcba", b"\0" * 3])),
)
def test_agrees_with_a_naive_search(parts: list[bytes], others: list[bytes]) -> None:
    held_out, train = b"".join([*parts, b".."]), b"".join([b"..", *parts[:3], *others])
    found = overlap(as_bytes(train), as_bytes(held_out))
    assert found["windows_in_train"] == naive_windows(train, held_out)


def test_windows_that_differ_in_one_bit_have_other_fingerprints() -> None:
    text = np.tile(random_text(WINDOW, 0), (8 * WINDOW + 1, 1))
    for bit in range(8 * WINDOW):
        text[bit, bit // 8] ^= 1 << bit % 8
    assert len({int(fingerprints(window)[0]) for window in text}) == len(text)


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
    assert found["val"]["windows_in_train"] == 0
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
    assert found["val"]["windows_in_train"] == 200 - WINDOW + 1
    assert found["test"]["windows_in_train"] == 0
