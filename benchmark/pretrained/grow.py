"""From the folder of a checkpoint to that of a larger one."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from benchmark.base.errors import CheckpointError
from benchmark.model.transformer import FixedAxis
from benchmark.pretrained.architecture import (
    Layout,
    Named,
    TensorSpec,
    load_architecture,
    stored_shape,
)
from benchmark.pretrained.folder import (
    DTYPES,
    FLOATS,
    CheckpointFolder,
    Entry,
    shard_names,
    shards,
    write_index,
    write_json,
    write_shard,
)
from benchmark.pretrained.growth import Asked, Growth, Step, closed_form, through

PIECE_BYTES = 4 * 2**20
"""Of a large tensor; more is grown piece by piece: little enough for a processor's cache."""


@dataclass(frozen=True)
class Request:
    """What a user asks for."""

    path: Path
    method: str
    to: list[str]
    arguments: dict[str, object]
    seed: int = 0
    architecture: Path | None = None
    """A file to read instead of the packaged ones."""


Part = tuple[list[Step], tuple[int, Tensor] | None, int]


class Plan:
    """A growth that can be done, with every choice made; so far only headers were read.

    Raises:
        BenchmarkError: it cannot, because of the checkpoint, the method or the sizes.
    """

    def __init__(self, request: Request) -> None:
        self.request, self.source = request, CheckpointFolder(request.path)
        fields = self.source.fields
        architecture = load_architecture(str(fields.get("model_type")), request.architecture)
        self.layout = Layout(architecture, fields)
        operators = closed_form(request.method, request.arguments)
        self.small = self.layout.config
        self.tensors = self._found()
        self.large = self.layout.target(request.to)
        self.growth = Growth(self.layout, self.large, operators, request.seed)
        self.growth.steps  # noqa: B018 - refuses what the operators cannot reach
        self.some = cache(self.growth.some)  # of one axis many tensors have the same pieces
        self.fields = self.layout.grown_fields(
            self.large, self.growth.eps_scale, self.growth.sources()
        )

    def _found(self) -> dict[str, Named]:
        """Every tensor of the checkpoint by the operators' name for it, checked against the config.

        Raises:
            CheckpointError: one is missing, unknown, of another shape or no floating-point numbers.
        """
        stored, found = self.source.tensors, dict[str, Named]()
        for tensor in self.layout.tensors(self.small.n_layer):
            full_name, spec = tensor.file_name, tensor.spec
            short = full_name.removeprefix(self.layout.architecture.prefix)
            file_name = full_name if full_name in stored else short
            if file_name in stored:
                found[tensor.name] = replace(tensor, file_name=file_name)
                self._check(found[tensor.name], stored[file_name])
            elif not (spec.kind == "copy" or (spec.role == "head" and self.small.tied)):
                raise CheckpointError(f"{full_name} is missing; config.json makes it part of this")
        known = {named.file_name for named in found.values()}
        if unknown := [name for name in stored if name not in known]:
            raise CheckpointError(
                f"unknown tensor {unknown[0]}: config.json and the file of the architecture "
                f"{self.source.fields['model_type']} have none of that name"
            )
        return found

    def _check(self, named: Named, stored: Entry) -> None:
        if named.spec.kind == "copy":
            return
        shape = stored_shape(named.spec, self.small)
        if shape != stored.shape:
            raise CheckpointError(
                f"{named.file_name} is {list(stored.shape)}, but config.json makes it {list(shape)}"
            )
        if stored.dtype not in FLOATS:
            raise CheckpointError(
                f"{named.file_name} is stored as {stored.dtype}: what can be grown is "
                f"{', '.join(FLOATS)}"
            )

    @cached_property
    def wide(self) -> torch.dtype:
        """What is computed in: float32, or float64 where something is stored in that."""
        is_double = any(stored.dtype == "F64" for stored in self.source.tensors.values())
        return torch.float64 if is_double else torch.float32

    @property
    def stored(self) -> torch.dtype:
        """Data type of the largest tensor."""
        return DTYPES[max(self.source.tensors.values(), key=lambda stored: stored.n_bytes).dtype]

    @cached_property
    def entries(self) -> dict[Entry, Named]:
        """Every tensor of the large checkpoint, in the order of its files."""
        entries = dict[Entry, Named]()
        prefix = self.layout.architecture.prefix
        for tensor in self.layout.tensors(self.large.n_layer):
            if (origin := self.tensors.get(self.growth.origin(tensor.name))) is None:
                continue
            stored, spec = self.source.tensors[origin.file_name], tensor.spec
            is_whole = origin.file_name.startswith(prefix)
            file_name = tensor.file_name if is_whole else tensor.file_name.removeprefix(prefix)
            shape = stored.shape if spec.kind == "copy" else stored_shape(spec, self.large)
            entries[Entry(file_name, stored.dtype, shape)] = replace(tensor, file_name=file_name)
        return entries

    @property
    def shards(self) -> list[list[Entry]]:
        """What each file of the large checkpoint holds."""
        return shards(list(self.entries), self.source.most_bytes)

    @property
    def n_bytes(self) -> int:
        """Size of the large checkpoint's tensors."""
        return sum(entry.n_bytes for entry in self.entries)

    @property
    def is_exact(self) -> bool:
        """Whether the large model is claimed to compute what the small one does."""
        return all(step.is_exact for step in self.growth.steps)

    def steps(self) -> Iterator[tuple[str, str, bool]]:
        """Of every step: the operator, what it grows, and whether that is claimed to be exact."""
        for step in self.growth.steps:
            small, large = step.small.sizes(), step.large.sizes()
            heads = "queries of each key" if step.transfer.shell.by_query else "n_kv_head"
            grown = [
                f"{heads if name == 'n_head' else name} {old} to {large[name]}"
                for name, old in small.items()
                if large[name] != old
            ]
            yield type(step.operator).__name__, ", ".join(grown), step.is_exact

    def write(self, folder: Path, advance: Callable[[int], None] = lambda _: None) -> None:
        """Write config, weights and what lies beside them.

        Args:
            folder: an empty one.
            advance: told how many bytes were written, piece by piece.

        Raises:
            CheckpointError: the disk is too small, or a tensor has NaN.
        """
        if (free := shutil.disk_usage(folder).free) < self.n_bytes:
            raise CheckpointError(
                f"{self.n_bytes:,} bytes are to be written, and the disk has {free:,} left"
            )
        write_json(folder / "config.json", self.fields)
        self.source.copy_beside(folder)
        groups = self.shards
        for name, group in zip(shard_names(len(groups)), groups, strict=True):
            write_shard(folder / name, group, self._pieces(group, advance))
        write_index(folder, groups)

    def _pieces(self, group: list[Entry], advance: Callable[[int], None]) -> Iterator[Tensor]:
        for entry in group:
            for piece in self._grown(self.entries[entry], entry):
                yield piece
                advance(piece.nbytes)

    def _grown(self, named: Named, entry: Entry) -> Iterator[Tensor]:
        """A large tensor as it is stored, in pieces along the axis that lies first in memory."""
        spec, dtype = named.spec, DTYPES[entry.dtype]
        for steps, some, n_rows in self._parts(spec, entry):
            small = Asked(partial(self.read, some=some), self.tensors.__contains__)
            large = through(steps, small, lambda step, below, n: step.weight(n, below, self.wide))
            yield to_stored(large[named.name], spec, (n_rows, *entry.shape[1:])).to(dtype)

    def _parts(self, spec: TensorSpec, entry: Entry) -> Iterator[Part]:
        """Of each piece of a tensor: steps of its growth, what they read, rows in the file."""
        steps, shape = self.growth.steps, entry.shape
        n_pieces = math.ceil(entry.n_bytes / PIECE_BYTES)
        axis: str = FixedAxis("", 1)
        if spec.kind != "copy" and min(n_pieces, len(shape)) > 1:
            axes = spec.axes(self.large, by_query=False)
            axis = (axes.into if spec.transposed else axes.names)[0]
        splits = all(step.splits(axis, is_out=not spec.transposed) for step in steps)
        if isinstance(axis, FixedAxis) or not splits:
            yield steps, None, shape[0] if shape else 1
            return
        n_old, n_new = self.small.size(axis), self.large.size(axis)
        n_each = max(1, n_new // n_pieces)
        for start in range(0, n_new, n_each):
            end = min(start + n_each, n_new)
            steps, below = self.some(axis, start, end)
            yield steps, (n_old, below), shape[0] // n_new * (end - start)

    def read(self, name: str, some: tuple[int, Tensor] | None = None) -> Tensor:
        """A tensor of the checkpoint as operators see it, or some of it as `folder` reads it."""
        named = self.tensors[name]
        tensor = self.source.read(named.file_name, some)
        return tensor.T if named.spec.transposed else tensor


def to_stored(weight: Tensor, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    """A tensor as it lies in a file."""
    return weight.reshape(shape[::-1]).T if spec.transposed else weight.reshape(shape)
