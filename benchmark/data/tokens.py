"""How many bytes a token stands for, and which: the one place that knows.

A byte is a token of its own, or a token of a larger vocabulary stands for some bytes; scores, their
blocks, bits per byte and what looks at text ask here. A vocabulary is read from a tokenizer's own
file without the package that made it: a JSON file of `tokenizers` whose tokens are bytes (its
decoder is ByteLevel), or ranks as tiktoken keeps them, a token in base64 and its number on a line.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark.base.errors import DataError
from benchmark.base.paths import display_path

Bytes = npt.NDArray[np.uint8]
_PIECE = 1 << 20  # tokens at a time


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The bytes that tokens stand for, by number."""

    tokens: Mapping[int, bytes]
    """Some may stand for no text, such as the end of a document: their nats count, bytes do not."""

    size: int
    """Numbers are below it."""

    def byte_counts(self, ids: Tensor) -> Tensor:
        """Bytes of text that each token stands for.

        Args:
            ids: of any shape.

        Returns:
            int64, of the same shape, on the CPU.
        """
        return self._lengths[ids.cpu().long()]

    def n_bytes(self, ids: Tensor) -> int:
        """Length of a text (N,) in bytes.

        Raises:
            DataError: naming a token whose bytes nothing tells.
        """
        if self is BYTES:
            return len(ids)
        total = 0
        for piece in ids.split(_PIECE):
            numbers = piece.long()
            counts = self.byte_counts(numbers.clamp(max=self.size))
            if (counts < 0).any():
                raise DataError(
                    f"nothing tells the bytes of token {int(numbers[counts < 0][0])}: is it beyond "
                    f"corpus.vocabulary={self.size}, is corpus.dtype another, or does it stand for "
                    "no text (corpus.special)?"
                )
            total += int(counts.sum())
        return total

    def first(self, ids: Tensor, n_bytes: int) -> Tensor:
        """The tokens of a text (N,) that begin in its first bytes."""
        head = ids[:n_bytes]
        ends = self.byte_counts(head).cumsum(0)
        return head[: int((ends < n_bytes).sum()) + 1]

    def decode(self, ids: Tensor) -> Bytes:
        """The text that tokens (N,) stand for."""
        if self is BYTES:
            return ids.numpy()
        counts, ends = self.byte_counts(ids), self._lengths.clamp(min=0).cumsum(0)
        shift = ends[ids.long()] - counts.cumsum(0)
        at = shift.repeat_interleave(counts) + torch.arange(int(counts.sum()))
        return self._text[at.numpy()]

    @cached_property
    def _lengths(self) -> Tensor:
        """Of each token, and of one beyond them: -1 where nothing tells."""
        found = [self.tokens.get(token) for token in range(self.size)]
        return torch.tensor([*(-1 if text is None else len(text) for text in found), -1])

    @cached_property
    def _text(self) -> Bytes:
        """Of all tokens, one after the other."""
        return np.frombuffer(b"".join(text for _, text in sorted(self.tokens.items())), np.uint8)


BYTES = Vocabulary({byte: bytes([byte]) for byte in range(256)}, 256)
"""Each byte is a token."""


def read_vocabulary(path: Path) -> dict[int, bytes]:
    """Bytes of the tokens of a tokenizer's file.

    Raises:
        DataError: it cannot be read, or does not tell the bytes of its tokens.
    """
    where = f"{display_path(path)} (tokenizer)"
    try:
        content = path.read_bytes()
        if is_json(content):
            return _from_json(json.loads(content), where)
        pairs = [line.split() for line in content.splitlines() if line]
        tokens = {int(rank): base64.b64decode(token, validate=True) for token, rank in pairs}
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: neither JSON of `tokenizers` nor tiktoken's ranks ({error})"
        ) from error
    if not tokens:
        raise DataError(f"{where}: has no tokens")
    return tokens


def is_json(content: bytes) -> bool:
    """Whether a tokenizer's file is one of `tokenizers`; else it has ranks."""
    return content.lstrip()[:1] == b"{"


def _from_json(content: Mapping[str, Any], where: str) -> dict[int, bytes]:
    """Tokens of byte-level BPE, in which every byte is written as a printable character."""
    decoder = content.get("decoder") or {}
    kinds = {part.get("type") for part in (decoder, *decoder.get("decoders", ()))}
    if "ByteLevel" not in kinds:
        raise DataError(
            f"{where}: its tokens do not tell their bytes (decoder {decoder.get('type')}); allowed "
            "is a decoder ByteLevel"
        )
    added = content.get("added_tokens", ())
    tokens = {e["id"]: b"" if e["special"] else e["content"].encode() for e in added}
    byte_of = _byte_of_character()
    for token, number in content["model"]["vocab"].items():
        if number not in tokens:
            if not set(token) <= byte_of.keys():
                raise DataError(f"{where}: token {number} ({token!r}) does not tell its bytes")
            tokens[number] = bytes(byte_of[character] for character in token)
    return tokens


def _byte_of_character() -> dict[str, int]:
    """What GPT-2 (Radford et al. 2019) writes bytes as: itself if printable, else from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
