"""`growbench doctor` says what is wrong with a machine, what to do, and how fast it trains."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from tiny_suite import prepare
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.plan.config import load_machine, load_suite
from benchmark.session import doctor
from benchmark.session.doctor import Doctor, Finding, gpu, planned


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny suite, on a machine without a GPU."""
    monkeypatch.chdir(prepare(tmp_path))
    monkeypatch.setattr(doctor, "GPU", tmp_path / "absent")
    monkeypatch.setattr(doctor, "_ask_driver", lambda: None)
    return tmp_path


def asked(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", "tiny.yaml", "methods=[scratch]", *arguments])
    return done.exit_code, done.output


@pytest.mark.slow
def test_a_laptop_is_measured_into_a_machine_that_plan_reads(folder: Path) -> None:
    code, told = asked("--write", "mine.yaml")
    assert code == 0, told
    assert "no NVIDIA GPU here" in told
    assert "tokens a second" in told
    assert "suite tiny on" in told
    machine = load_machine("mine.yaml")
    assert (machine.name, machine.device) == ("mine", "cpu")
    assert all(0 < share <= 1 for share in machine.utilisation["eager"].values())
    planned = CliRunner().invoke(app, ["plan", "tiny.yaml", "--machine", "mine.yaml"])
    assert planned.exit_code == 0, planned.output
    assert "measured by growbench doctor tiny" in planned.output


def test_a_gpu_that_does_not_start_fails_and_the_cure_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "nvidia0").touch()
    monkeypatch.setattr(doctor, "GPU", folder / "nvidia0")
    code, told = asked("run.device=auto")
    assert code == 1
    assert "failed driver   there is a GPU" in told
    assert "failed CUDA     PyTorch" in told
    assert "does not start it: " in told
    assert "run.device=cpu" in told
    assert "tokens a second" not in told
    code, told = asked("run.device=cpu")  # wanted so
    assert (code, "failed" in told) == (0, False)


def test_an_old_driver_is_told_in_cudas_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).")

    monkeypatch.setattr(doctor, "_ask_driver", lambda: "NVIDIA H100, 535.1, 81559 MiB")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse)
    driver, cuda = gpu("cpu", is_asked=True)
    assert driver == Finding("passed", "driver", "NVIDIA H100, 535.1, 81559 MiB")
    assert cuda.status == "failed"
    assert (
        "CUDA 13.0, does not start it: The NVIDIA driver on your system is too old" in cuda.detail
    )
    assert "update the driver" in cuda.detail


def test_the_driver_is_asked_by_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(code: int, text: str) -> None:
        done = subprocess.CompletedProcess([], code, stdout=text)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    answer(0, "NVIDIA H100, 535.1, 81559 MiB\nNVIDIA H100, 535.1, 81559 MiB\n")
    assert doctor._ask_driver() == "; ".join(["NVIDIA H100, 535.1, 81559 MiB"] * 2)
    answer(9, "NVIDIA-SMI has failed")
    assert doctor._ask_driver() is None


def test_a_disk_and_a_memory_that_are_too_small_fail(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Doctor(load_suite("tiny.yaml", ["methods=[scratch]"]))
    assert [found._disk().status, found._memory().status] == ["passed", "passed"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: replace_free(1))
    assert found._disk().status == "failed"
    assert "set run.cache elsewhere" in found._disk().detail
    need = max(spec.step_bytes(spec.batch_size) for spec in found.specs)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(need - 1, 10 * need))
    assert "end what else uses it" in found._memory().detail
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(need // 2, need // 2))
    assert found._memory().detail.endswith("take a smaller workload.target")


def test_a_compiler_that_is_missing_fails_and_the_way_around_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "require_compiler", broken)
    found = Doctor(load_suite("tiny.yaml", ["methods=[scratch]", "run.compile=true"]))._compiler()
    assert found.status == "failed"
    assert found.detail == "no such thing; or train without: run.compile=false"


def test_a_corpus_is_planned_by_its_manifest_and_named_if_it_must_be_downloaded(
    folder: Path,
) -> None:
    suite = load_suite("gpu", ["run.device=cpu", "methods=[scratch]"])
    runs = planned(replace(suite, run=replace(suite.run, cache=str(folder))))
    assert runs[0].data["train"] == 990_000_000
    last = list(Doctor(replace(suite, run=replace(suite.run, cache=str(folder)))).examine())[-1]
    assert (last.status, last.name) == ("note", "corpus")
    assert "enwik9 will be downloaded from http://mattmahoney.net" in last.detail


class Memory:
    """What psutil tells of a machine's memory."""

    def __init__(self, available: int, total: int) -> None:
        self.available, self.total = available, total


class replace_free:  # noqa: N801 - stands for a result of shutil.disk_usage
    """A disk with so many bytes free."""

    def __init__(self, free: int) -> None:
        self.free = free


def broken(_: str) -> None:
    raise RuntimeError("no  such\nthing")
