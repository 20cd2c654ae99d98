"""What a stage needs and leaves, on its way between machines that share no folder."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.records.events import atomic_write
from benchmark.stage.checkpoint import StageStore

Files = dict[str, bytes]
"""Content of files of stages, by "STAGE/NAME"."""

CHECKPOINT = "checkpoint.safetensors"
PROGRESS, PROGRESS_LOG = "progress.safetensors", "progress.jsonl"
"""The state of an unfinished stage, which never travels, and the log that belongs to it."""

RECORDS = ("spec.json", "events.jsonl", PROGRESS_LOG, "traceback.txt", "result.json")
"""What is left beside a checkpoint; the result, which says that the stage is finished, is last."""


def pack(cache: Path, stage: str, names: Sequence[str]) -> Files:
    """Those of the files that are there."""
    folder = StageStore(cache).folder(stage)
    there = (name for name in names if (folder / name).is_file())
    return {f"{stage}/{name}": (folder / name).read_bytes() for name in there}


def unpack(cache: Path, files: Files) -> None:
    """Place the files in their order.

    A checkpoint that is there already is the same one. Where the state of an unfinished stage lies,
    its own log stays: that of another attempt has other times, and other lengths.
    """
    store = StageStore(cache)
    stays = {CHECKPOINT: CHECKPOINT, PROGRESS_LOG: PROGRESS}
    for path, content in files.items():
        stage, _, name = path.partition("/")
        folder = store.folder(stage)
        if name not in stays or not (folder / stays[name]).is_file():
            atomic_write(folder / name, content)
