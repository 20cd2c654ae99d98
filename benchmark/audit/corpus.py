"""The text is the one that was planned, and the tripwires say what that text gives.

Where the text is at hand (prepared before, in a file, or in an installed package), what the splits
share is counted again; else corpus.json is held to the manifest, the plan and itself.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.audit.evidence import Evidence, Remark, log_of
from benchmark.audit.overlap import WINDOWS, Bytes, shared_text
from benchmark.audit.shipped import differences, read
from benchmark.base.errors import DataError, RecordError
from benchmark.base.paths import CONFIGS
from benchmark.data.sources import packaged
from benchmark.records.lock import FILE as LOCK

FILE = "corpus.json"
SPLITS = ("train", "val", "test")
FACTS = ("corpus", "corpus_sha256", *(f"{split}_bytes" for split in SPLITS))
"""What every run says of its text."""

CACHE = Path(".growbench") / "corpora"
"""Where prepared texts lie unless `run.cache` says otherwise."""


def corpus(evidence: Evidence) -> Iterator[Remark]:
    """Text and splits are those of the manifest; corpus.json says what they give."""
    manifest = evidence.shared["workload"]["corpus"]
    shipped = CONFIGS / "corpus" / f"{manifest['name']}.yaml"
    meant = read(shipped) if shipped.is_file() else {"kind": "file"}
    if meant["kind"] != "file":  # of such, the shipped one is a pattern
        for key, value, right in differences(manifest, meant):
            place = f"runs/{evidence.ran[0].run_id}.jsonl.gz: workload.corpus.{key}"
            yield Remark(f"{place} is {value}, configs/corpus/{shipped.name} has {right}")
    first = evidence.ran[0].events[0]
    facts = {key: first[key] for key in FACTS}
    yield from _agree(evidence, manifest, facts)
    path = evidence.folder / FILE
    if not path.is_file():
        yield Remark(f"{FILE}: there is none: nobody looked for held-out text in training text")
        return
    found = _read(path)
    if (rate := found["entropy_rate_bits"]) is not None and manifest["markov"] is None:
        yield Remark(f"{FILE}: entropy_rate_bits is {rate}: only a synthetic source has one")
    text = _text(manifest, first["corpus_sha256"])
    if text is None:
        what = f"the text of {first['corpus']} is not at hand, so its counts are as stated"
        yield Remark(f"{FILE}: {what}", is_fault=False)
    right_values = list(_implied(found, facts))
    right_values += _counted(found, facts, text) if text is not None else ()
    for key, right in right_values:
        if (value := _at(found, key)) != right:
            yield Remark(f"{FILE}: {key} is {value}, the text gives {right}")


def _agree(
    evidence: Evidence, manifest: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[Remark]:
    """Where manifest, plan and runs contradict one another."""
    for run in evidence.ran:
        for key, value in facts.items():
            if run.events[0][key] != value:
                yield Remark(f"{log_of(run)}: {key} is {run.events[0][key]}, others have {value}")
    size = manifest["size"] or sum(facts[f"{split}_bytes"] for split in SPLITS)
    starts = [int(s * size if s < 1 else s) for s in manifest["splits"].values()]
    lengths = [b - a for a, b in pairwise([0, *starts, size])]
    said = {
        "the manifest": [manifest["name"], manifest["sha256"] or facts["corpus_sha256"], *lengths]
    }
    if evidence.lock:
        plan = evidence.lock.current["corpus"]
        said[LOCK] = [plan[key] for key in ("corpus", "sha256", *SPLITS)]
    for place, values in said.items():
        for key, value in zip(FACTS, values, strict=True):
            if facts[key] != value:
                where = log_of(evidence.ran[0])
                yield Remark(f"{where}: {key} is {facts[key]}, {place} says {value}")


def _implied(found: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys of corpus.json and what they should be, whatever the text is."""
    yield from {"corpus": facts["corpus"], "sha256": facts["corpus_sha256"],
                "train_bytes": facts["train_bytes"]}.items()  # fmt: skip
    for split in SPLITS[1:]:
        n_bytes = facts[f"{split}_bytes"]
        yield f"{split}.n_bytes", n_bytes
        for length in WINDOWS:
            count = found[split]["windows_in_train"][str(length)]
            yield f"{split}.shares_in_train.{length}", count / max(n_bytes - length + 1, 1)


def _counted(
    found: Mapping[str, Any], facts: Mapping[str, Any], text: Bytes
) -> Iterator[tuple[str, Any]]:
    """The same for what only the text can tell."""
    ends = np.cumsum([facts[f"{split}_bytes"] for split in SPLITS])
    train, *held_out = np.split(text, ends[:-1])
    for split, part in zip(SPLITS[1:], held_out, strict=True):
        for key, right in shared_text(train, part, found[split]["longest"]).items():
            yield f"{split}.{key}", right


def _text(manifest: Mapping[str, Any], sha256: str) -> Bytes | None:
    """The whole text, uint8 (N,), if it is at hand: prepared before, in a file, or installed."""
    prepared = CACHE / manifest["name"] / f"{sha256}.bin"
    path = Path(manifest["path"]) if manifest["kind"] == "file" else prepared
    if path.is_file():
        with path.open("rb") as file:
            is_it = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        return np.memmap(path, dtype=np.uint8, mode="r") if is_it else None
    if manifest["kind"] != "package":
        return None
    held_out = [manifest.get("held_out", {}).get(split, []) for split in SPLITS[1:]]
    try:
        packages, include, exclude = (manifest[k] for k in ("packages", "include", "exclude"))
        text = b"".join(packaged(packages, include, exclude, held_out))
    except (DataError, OSError, ValueError, KeyError):
        return None
    is_it = hashlib.sha256(text).hexdigest() == sha256
    return np.frombuffer(text, dtype=np.uint8) if is_it else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{FILE}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{FILE}: expected an object, got {type(content).__name__}")
    return content


def _at(found: Mapping[str, Any], key: str) -> object:
    """The value at a dotted key."""
    value: Any = found
    for name in key.split("."):
        value = value[name]
    return value
