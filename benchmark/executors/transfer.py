"""What a stage needs and leaves, on its way between machines that share no folder."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.checkpoint import StageStore
from benchmark.records import atomic_write

Files = dict[str, bytes]
"""Content of files of stages, by "STAGE/NAME"."""

CHECKPOINT = "checkpoint.safetensors"
RECORDS = ("spec.json", "events.jsonl", "progress.jsonl", "traceback.txt", "result.json")
"""What is left beside a checkpoint; the result, which says that the stage is finished, is last."""


def pack(cache: Path, stage: str, names: Sequence[str]) -> Files:
    """Those of the files that are there."""
    folder = StageStore(cache).folder(stage)
    there = (name for name in names if (folder / name).is_file())
    return {f"{stage}/{name}": (folder / name).read_bytes() for name in there}


def unpack(cache: Path, files: Files) -> None:
    """Place the files in their order; a checkpoint that is there already is the same one."""
    store = StageStore(cache)
    for path, content in files.items():
        stage, _, name = path.partition("/")
        if name != CHECKPOINT or not store.checkpoint(stage).is_file():
            atomic_write(store.folder(stage) / name, content)
