"""A real cluster on this machine: a head and two nodes, one of which is killed under the suite."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from interrupts import heed_interrupts
from ray_cluster import HEAD, ROOT, Cluster, cluster, see_gone
from tiny_suite import prepare

from benchmark.audit import audit
from benchmark.base.errors import ConfigError
from benchmark.plan.config import load_suite
from benchmark.records.folder import load_suite as load_records
from benchmark.session.session import Session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),  # one cluster for all of them
    pytest.mark.skipif(sys.platform != "linux", reason="Ray has no clusters of nodes elsewhere"),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is in growbench[ray], not here"),
]

TIMEOUT = 180.0
ANSWER_SECONDS = 15.0

MODULE = '''
"""A method that tells its process, and goes on only once somebody lets it."""

import os
import time
from pathlib import Path

from baselines.stacking import RepeatBlocks, Stacking


class Waits(RepeatBlocks):
    """Copy blocks, some day."""

    def adapt(self, weight, axes):
        here = Path(__file__).parent
        if not (here / "go").exists():
            (here / "partial").write_text(str(os.getpid()))
            (here / "partial").rename(here / "held")
        while not (here / "go").exists():
            time.sleep(0.05)
        return weight


class Held(Stacking):
    """Grow n_layer."""

    def __init__(self):
        super().__init__()
        self.operators = (Waits(),)
'''
METHOD = """
name: held
target: "held:Held"
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.growth.schedule:AtFractions", args: {at: [0.3]}}
"""
PASSING = re.compile(r"seconds|peak_memory|diff_sha256")
"""Fields in which the clock, the memory of a process, and an editor have a part."""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A head without work, and two nodes of one core."""
    with cluster(2) as started:
        yield started


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the same suite on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "go").touch()
    run(folder, os.environ, "run.workers=2")
    return folder / "results" / "local" / "tiny"


@contextmanager
def growbench(
    folder: Path, environment: Mapping[str, str], *settings: str, root: Path = ROOT
) -> Iterator[subprocess.Popen[str]]:
    """`growbench run` of the tiny suite, with a method that can be held, in `folder`.

    The code is that of `root`.
    """
    prepare(folder)
    (folder / "held.py").write_text(MODULE)
    (folder / "held.yaml").write_text(METHOD)
    methods = "methods=[scratch,scratch_small,held.yaml]"
    with subprocess.Popen(
        [sys.executable, "-m", "benchmark", "run", "tiny.yaml", methods,
         "protocol.seeds=[0]", *settings],
        cwd=folder, env={**environment, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 (nothing here holds a lock)
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def run(folder: Path, environment: Mapping[str, str], *settings: str) -> None:
    """The same, to its end."""
    with growbench(folder, environment, *settings) as process:
        finish(process)


def on_ray(there: Cluster) -> list[str]:
    return ["--executor=ray", f"--address={there.address}", "run.retries=2"]


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors


def held(folder: Path, process: subprocess.Popen[str]) -> psutil.Process:
    """The process, somewhere in the cluster, whose stage waits."""
    until = time.monotonic() + TIMEOUT
    while not (folder / "held").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no stage waits"
        time.sleep(0.05)
    return psutil.Process(int((folder / "held").read_text()))


def timeless(record: object) -> object:
    """A record without the fields above."""
    if isinstance(record, dict):
        return {k: timeless(v) for k, v in record.items() if not PASSING.search(k)}
    return [timeless(item) for item in record] if isinstance(record, list) else record


def records(results: Path) -> dict[str, object]:
    """All that is known of every run, without what passes."""
    return {
        run.run_id: timeless([*run.events, run.config, *run.provenance])
        for run in load_records(results).runs
    }


def test_a_suite_outlives_a_machine_and_leaves_the_records_of_the_local_executor(
    two_nodes: Cluster, local: Path, tmp_path: Path
) -> None:
    with growbench(tmp_path, two_nodes.environment, *on_ray(two_nodes)) as process:
        lost = held(tmp_path, process)
        two_nodes.lose(lost.pid)
        see_gone([lost])
        (tmp_path / "go").touch()
        finish(process)
    two_nodes.add_node()
    assert [f for f in audit(tmp_path / "results" / "local" / "tiny") if f.status == "failed"] == []
    there = records(tmp_path / "results" / "local" / "tiny")
    assert len(there) == 3
    assert there == records(local)


def test_an_interrupted_command_leaves_nothing_behind_and_goes_on(
    two_nodes: Cluster, local: Path, tmp_path: Path
) -> None:
    with growbench(tmp_path, two_nodes.environment, *on_ray(two_nodes)) as process:
        stage = held(tmp_path, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, errors
    assert errors == "growbench: interrupted; the same command goes on where it stopped\n"
    see_gone([stage])
    (tmp_path / "go").touch()
    run(tmp_path, two_nodes.environment, *on_ray(two_nodes))
    assert records(tmp_path / "results" / "local" / "tiny") == records(local)


def test_a_cluster_with_other_code_is_refused_in_one_line(
    two_nodes: Cluster, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "benchmark", other / "benchmark")
    for name in ("configs", "baselines"):
        (other / name).symlink_to(ROOT / name)
    with (other / "benchmark/growth/noise.py").open("a") as file:
        file.write("OTHER = 1\n")
    folder = tmp_path / "here"
    with growbench(folder, two_nodes.environment, *on_ray(two_nodes), root=other) as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2, errors
    assert "a machine of the cluster has other code or releases than the command's" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("address", [f"{HEAD}:1", "here"])
def test_a_wrong_address_ends_the_command_in_one_line_and_soon(
    tmp_path: Path, address: str
) -> None:
    began = time.monotonic()
    with growbench(tmp_path, os.environ, "--executor=ray", f"--address={address}") as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2, errors
    assert f"run.address '{address}': no Ray cluster answers within" in errors
    assert errors.count("\n") == 1
    assert time.monotonic() - began < 4 * ANSWER_SECONDS  # with the start of Python


def test_without_ray_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    monkeypatch.setitem(sys.modules, "benchmark.executors.cluster", None)
    session = Session(load_suite("tiny.yaml", ["run.executor=ray"]))
    with pytest.raises(ConfigError, match=r"pip install 'growbench\[ray\]'"):
        session.execute(lambda _: None)
