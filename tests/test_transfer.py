"""Files of stages travel, and spoil nothing where they arrive."""

from pathlib import Path

from benchmark.executors.transfer import CHECKPOINT, PROGRESS, PROGRESS_LOG, RECORDS, pack, unpack
from benchmark.stage.checkpoint import StageStore


def stage(cache: Path, **files: bytes) -> Path:
    folder = StageStore(cache).folder("s")
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_records_arrive_with_the_result_last(tmp_path: Path) -> None:
    stage(tmp_path / "here", result__json=b"{}", events__jsonl=b"1\n", progress__jsonl=b"1\n")
    packed = pack(tmp_path / "here", "s", RECORDS)
    assert list(packed)[-1] == "s/result.json"
    unpack(tmp_path / "there", packed)
    assert pack(tmp_path / "there", "s", RECORDS) == packed


def test_an_unfinished_state_keeps_its_own_log(tmp_path: Path) -> None:
    there = stage(tmp_path, progress__safetensors=b"state", progress__jsonl=b"its own\n")
    unpack(tmp_path, {f"s/{PROGRESS_LOG}": b"of another attempt\n"})
    assert (there / PROGRESS_LOG).read_bytes() == b"its own\n"
    (there / PROGRESS).unlink()
    unpack(tmp_path, {f"s/{PROGRESS_LOG}": b"of another attempt\n"})
    assert (there / PROGRESS_LOG).read_bytes() == b"of another attempt\n"


def test_a_checkpoint_that_is_there_stays(tmp_path: Path) -> None:
    there = stage(tmp_path, checkpoint__safetensors=b"old")
    unpack(tmp_path, {f"s/{CHECKPOINT}": b"new"})
    assert (there / CHECKPOINT).read_bytes() == b"old"
