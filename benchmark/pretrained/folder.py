"""The folder of a checkpoint: config, safetensors in one file or in shards, and what lies beside.

Tensors are read one by one, each through a mapping of its own that ends with it, and written one
after the other behind a header that is known beforehand; so no file is ever held as a whole.
"""

import json
import mmap
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from benchmark.base.errors import CheckpointError
from benchmark.base.paths import display_path
from benchmark.growth.axis_map import take

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOST_BYTES = 5 * 10**9
"""Of a file, unless the shards that are grown are larger."""

BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
NOT_BESIDE = ("config.json", INDEX, "trainer_state.json")


@dataclass(frozen=True)
class Entry:
    """A tensor as the header of its file has it."""

    name: str
    dtype: str
    """As safetensors writes it, such as "BF16"."""

    shape: tuple[int, ...]
    file: Path = Path()
    """Where it is, if it is somewhere."""

    offset: int = 0
    """Of its content, from the beginning of that file."""

    @property
    def n_bytes(self) -> int:
        """Size of its content."""
        return torch.Size(self.shape).numel() * DTYPES[self.dtype].itemsize

    def mapped(self) -> Tensor:
        """The tensor as a view of the file, of which nothing is read yet."""
        # safe_open would parse the header for every piece of a tensor
        with self.file.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        n_entries, dtype = torch.Size(self.shape).numel(), DTYPES[self.dtype]
        flat = torch.frombuffer(content, dtype=dtype, count=n_entries, offset=self.offset)
        return flat.view(self.shape)


class CheckpointFolder:
    """A checkpoint as `save_pretrained` writes it, on this machine.

    Raises:
        CheckpointError: there is none, or one that cannot be grown: pickles, quantised weights.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise CheckpointError(
                f"{path} is not a folder; a checkpoint is one with config.json and safetensors "
                "(`hf download ORGANISATION/NAME --local-dir DIR` fetches a public one)"
            )
        self.path = path
        self.fields = read_json(path / "config.json")
        if "quantization_config" in self.fields:
            raise CheckpointError(
                "config.json: quantization_config: quantised weights cannot be grown; take the "
                "checkpoint that was quantised"
            )

    @cached_property
    def tensors(self) -> dict[str, Entry]:
        """Every tensor by its name, in the order of the files; only headers are read."""
        if (self.path / INDEX).is_file():
            index = read_json(self.path / INDEX).get("weight_map")
            if not isinstance(index, dict):
                raise CheckpointError(f"{INDEX}: weight_map is missing")
        elif (self.path / SINGLE).is_file():
            index = None
        else:
            raise CheckpointError(self._no_weights())
        files = [SINGLE] if index is None else sorted(set(index.values()))
        found = {n: s for file in files for n, s in _headers(self.path / str(file)).items()}
        if index is not None and (odd := sorted(found.keys() ^ index.keys())):
            where = "in a shard but not in" if odd[0] in found else "in no shard, but in"
            raise CheckpointError(f"{odd[0]} is {where} {INDEX}")
        return found

    def _no_weights(self) -> str:
        pickles = sorted(p.name for p in self.path.iterdir() if p.suffix in PICKLES)
        if pickles:
            return (
                f"{pickles[0]} is a pickle, which can run code when it is read, and is not opened; "
                "save the model as safetensors (save_pretrained does)"
            )
        return f"{display_path(self.path)} has neither {SINGLE} nor {INDEX}"

    def read(self, name: str, some: tuple[int, Tensor] | None = None) -> Tensor:
        """A tensor, or some of it.

        Args:
            name: in the file.
            some: length of its first axis, and the coordinates along that to read.

        Raises:
            CheckpointError: it holds NaN or infinity.
        """
        tensor = self.tensors[name].mapped()
        if some is not None:
            tensor = take(tensor.view(some[0], -1), 0, some[1]).view(-1, *tensor.shape[1:])
        if tensor.is_floating_point() and not _is_finite(tensor):
            where = display_path(self.tensors[name].file)
            raise CheckpointError(f"{where}: {name} has entries that are not finite numbers")
        return tensor

    @property
    def most_bytes(self) -> int:
        """Size of the files to write: that of the shards here, or what is usual."""
        files = {stored.file for stored in self.tensors.values()}
        return max(file.stat().st_size for file in files) if len(files) > 1 else MOST_BYTES

    def copy_beside(self, into: Path) -> list[str]:
        """Copy tokenizer, generation config, licence and the like; returns their names."""
        names = [
            file.name
            for file in sorted(self.path.iterdir())
            if file.is_file()
            and (file.suffix in BESIDE or file.name.startswith("LICENSE"))
            and not (file.name in NOT_BESIDE or file.name.endswith(".index.json"))
        ]
        for name in names:
            shutil.copyfile(self.path / name, into / name)
        return names


def _headers(path: Path) -> dict[str, Entry]:
    """Every tensor of a safetensors file."""
    try:
        with safe_open(path, framework="pt"):  # checks the header, and the length of the file
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise CheckpointError(f"{display_path(path)} is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"{display_path(path)} is damaged or cut short: {error}") from error
    header.pop("__metadata__", None)
    found = dict[str, Entry]()
    for name, entry in header.items():
        if (dtype := entry["dtype"]) not in DTYPES:
            raise CheckpointError(
                f"{display_path(path)}: {name} is stored as {dtype}; what can be grown is "
                f"{', '.join(FLOATS)}"
            )
        offset = 8 + length + entry["data_offsets"][0]
        found[name] = Entry(name, dtype, tuple(entry["shape"]), path, offset)
    return found


def _is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; a sum, which has either, is faster than to look."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a file.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{display_path(path)} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{display_path(path)}: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{display_path(path)}: expected a mapping")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A mapping as transformers writes it."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def shards(entries: Sequence[Entry], most_bytes: int) -> list[list[Entry]]:
    """The tensors of each file to write, in order, so that none is larger unless one tensor is."""
    groups, size = [list[Entry]()], 0
    for entry in entries:
        if groups[-1] and size + entry.n_bytes > most_bytes:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.n_bytes
    return groups


def shard_names(n_shards: int) -> list[str]:
    """Names of so many files."""
    if n_shards == 1:
        return [SINGLE]
    return [f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors" for i in range(n_shards)]


def write_index(path: Path, groups: Sequence[Sequence[Entry]]) -> None:
    """Say which file has which tensor, where there are several."""
    names = shard_names(len(groups))
    weight_map = {entry.name: n for n, group in zip(names, groups, strict=True) for entry in group}
    total = sum(entry.n_bytes for group in groups for entry in group)
    if len(groups) > 1:
        write_json(path / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_shard(path: Path, entries: Iterable[Entry], pieces: Iterable[Tensor]) -> None:
    """A safetensors file whose content arrives piece by piece, in the order of the entries."""
    header, offset = dict[str, Any](__metadata__={"format": "pt"}), 0
    for entry in entries:
        end = offset + entry.n_bytes
        header[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]
        }  # fmt: skip
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file, ThreadPoolExecutor(1) as writer:
        written = writer.submit(file.write, struct.pack("<Q", len(text)) + text)
        for piece in pieces:  # one is written while the next is made
            content = piece.contiguous().view(-1).view(torch.uint8).numpy().data
            written.result()
            written = writer.submit(file.write, content)
        written.result()
        assert file.tell() == 8 + len(text) + offset, path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder that becomes `path` if all goes well, and is nothing otherwise.

    Raises:
        CheckpointError: there is something already, or no folder to put it into.
    """
    check_free(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as hidden:
        work = Path(hidden) / path.name
        work.mkdir()
        yield work
        check_free(path)
        work.rename(path)


def check_free(path: Path) -> None:
    """Refuse to write where something is."""
    if path.exists() or path.is_symlink():
        raise CheckpointError(
            f"{path} is there already, and nothing is overwritten; give another --out"
        )
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder; it is where --out would be made")
