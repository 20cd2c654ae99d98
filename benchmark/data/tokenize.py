"""A corpus of tokens from a text file, with its manifest.

Every piece of the text must come back from its tokens byte for byte, or nothing is written: bits
per byte are of the text that was given, whatever the tokenizer.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from benchmark.base.errors import ConfigError, DataError
from benchmark.base.paths import display_path
from benchmark.data.corpora import Splits
from benchmark.data.download import CHUNK
from benchmark.data.sources import require_text
from benchmark.data.tokens import Vocabulary, is_json, read_vocabulary
from benchmark.records.events import atomic_write, atomic_write_text

Ids = npt.NDArray[np.int64]


def tokenize(text: Path, tokenizer: Path, out: Path, splits: Splits) -> tuple[Path, int]:
    """Write `<out>/<stem>_tokens.bin` and a manifest of the same name.

    Splits begin where they would in a corpus of bytes, or at the next character, so that models of
    either are scored on the same text. It is encoded in pieces of whole lines, of a mebibyte or a
    line: no token reaches across the border of two.

    Args:
        text: in UTF-8.
        tokenizer: as `read_vocabulary` takes it.
        out: a folder, made if need be.
        splits: of the text, in bytes.

    Returns:
        Path of the manifest, and how many tokens the vocabulary has.

    Raises:
        ConfigError: a file is there already, or the extra `tokens` is not installed.
        DataError: the text is not UTF-8, or does not come back from its tokens.
    """
    target = out / f"{text.stem}_tokens.bin"
    manifest = target.with_suffix(".yaml")
    if there := [display_path(path) for path in (target, manifest) if path.exists()]:
        raise ConfigError(f"{there[0]}: is there already; nothing was written")
    require_text(text, "FILE")
    content, tokens = text.read_bytes(), read_vocabulary(tokenizer)
    vocabulary, encode = Vocabulary(tokens, max(tokens) + 1), _encoder(tokenizer, tokens)
    marks = [_character(content, at) for at in splits.offsets(len(content))]
    ends = pairwise([0, *marks, len(content)])
    parts = [_encoded(content, start, end, encode, vocabulary) for start, end in ends]
    dtype = "uint16" if vocabulary.size <= 1 << 16 else "uint32"
    ids = np.concatenate(parts).astype(dtype).tobytes()
    described = {
        "name": target.stem,
        "kind": "tokens",
        "source": f"{text.name} in tokens of {tokenizer.name}; its splits begin at bytes {marks}",
        "licence": "Unknown to the benchmark",
        "path": str(target),
        "dtype": dtype,
        "vocabulary": vocabulary.size,
        "tokenizer": str(tokenizer),
    } | _measured(ids, parts)
    atomic_write(target, ids)
    atomic_write_text(manifest, yaml.safe_dump(described, sort_keys=False))
    return manifest, vocabulary.size


def _measured(ids: bytes, parts: list[Ids]) -> dict[str, Any]:
    """Length and digest of the file, and where its second and third part begin, in tokens."""
    n_train, n_val, _ = map(len, parts)
    starts = {"val_start": n_train, "test_start": n_train + n_val}
    return {"size": len(ids), "sha256": hashlib.sha256(ids).hexdigest(), "splits": starts}


def _encoder(tokenizer: Path, tokens: dict[int, bytes]) -> Callable[[str], list[int]]:
    """What turns text into tokens; text that looks like a special token is text.

    tiktoken's ranks do not say where words end: that is GPT-2's way.
    """
    try:
        if not is_json(tokenizer.read_bytes()):
            from tiktoken import Encoding  # noqa: PLC0415 - an extra
            from tiktoken_ext.openai_public import r50k_pat_str  # noqa: PLC0415

            ranks = {token: rank for rank, token in tokens.items()}
            if lacking := [byte for byte in range(256) if bytes([byte]) not in ranks]:
                raise DataError(f"{display_path(tokenizer)}: has no token for byte {lacking[0]}")
            return Encoding(
                tokenizer.name, pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={}
            ).encode_ordinary
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"growbench tokenize needs what is not installed ({error}): "
            "pip install 'growbench[tokens]'"
        ) from error
    found = Tokenizer.from_file(str(tokenizer))
    found.encode_special_tokens = True
    found.no_truncation()
    found.no_padding()
    return lambda text: found.encode(text, add_special_tokens=False).ids


def _encoded(
    content: bytes, start: int, end: int, encode: Callable[[str], list[int]], vocabulary: Vocabulary
) -> Ids:
    """Tokens of a part of a text, which they stand for."""
    pieces = [np.empty(0, np.int64)]
    while start < end:
        stop = min(start + CHUNK, end)
        if stop < end:  # whole lines, or one that is longer
            lines = content.rfind(b"\n", start, stop) + 1
            stop = lines or content.find(b"\n", stop, end) + 1 or end
        piece = content[start:stop]
        try:
            pieces.append(np.array(encode(piece.decode()), np.int64))
        except UnicodeDecodeError as error:
            at = start + error.start
            raise DataError(f"FILE is not UTF-8 at byte {at}; tokenizers read text") from error
        if vocabulary.decode(torch.from_numpy(pieces[-1])).tobytes() != piece:
            raise DataError(
                f"bytes {start} to {stop} of FILE do not come back from their tokens: the "
                "tokenizer normalises, or lacks some"
            )
        start = stop
    return np.concatenate(pieces)


def _character(content: bytes, at: int) -> int:
    """Where the first character begins from `at` on."""
    while at < len(content) and content[at] & 0xC0 == 0x80:  # noqa: PLR2004 - a byte within one
        at += 1
    return at
