"""A Ray cluster on the loopback addresses of this machine; no test lives here.

Run as a program, this file is the cluster's guard: a process that ends it when the tests are
through with it, or gone, in whatever way.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
HEAD = "127.0.0.2"
"""Not 127.0.0.1, which Ray takes for whatever else this machine is called."""

START_SECONDS = 120.0
OBJECT_STORE_BYTES = 80 * 2**20


class Cluster:
    """A head without work, and nodes of one core; each is a session of processes of its own.

    Args:
        folder: for Ray's files; the path must be short, as sockets lie in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.guard = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        port = free_port()
        self.address = f"{HEAD}:{port}"
        self._start(
            HEAD, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
            "--no-monitor",
        )  # fmt: skip

    def add_node(self) -> None:
        """Start a machine with one core; it joins when it is up."""
        self._start(f"127.0.0.{2 + len(self.nodes)}", f"--address={self.address}", "--num-cpus=1")

    def wait(self) -> None:
        """Until the head can be reached."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            assert self.nodes[0].poll() is None, self.log(0)
            with socket.socket() as probe:
                if probe.connect_ex((HEAD, int(self.address.rpartition(":")[-1]))) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError(self.log(0))

    def lose(self, process: int) -> None:
        """Kill the machine that a process runs on, in the midst of everything."""
        (node,) = (node for node in self.nodes if node.pid == os.getsid(process))
        kill({node.pid})
        node.wait(timeout=START_SECONDS)

    def end(self) -> None:
        """Leave nothing of it."""
        self.guard.communicate(timeout=START_SECONDS)
        assert self.guard.returncode == 0
        for node in self.nodes:
            node.wait(timeout=START_SECONDS)

    def log(self, node: int) -> str:
        """What a node has printed."""
        return (self.folder / f"{node}.log").read_text()

    def _start(self, address: str, *options: str) -> None:
        n = len(self.nodes)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
            f"--node-ip-address={address}", f"--temp-dir={self.folder / str(n)}",
            f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-log-monitor=false",
            "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
        ]  # fmt: skip
        with (self.folder / f"{n}.log").open("wb") as log:
            node = subprocess.Popen(
                [*command, *options], cwd=self.folder, env=self.environment,
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.nodes.append(node)
        assert self.guard.stdin is not None
        self.guard.stdin.write(f"{node.pid}\n")
        self.guard.stdin.flush()


@contextmanager
def cluster(n_nodes: int) -> Iterator[Cluster]:
    """A head and nodes, of which nothing is left afterwards, whatever happens."""
    started = Cluster(Path(tempfile.mkdtemp(prefix="ray-")))
    try:
        for _ in range(n_nodes):
            started.add_node()
        started.wait()
        yield started
    finally:
        started.end()


def kill(sessions: Collection[int]) -> None:
    """End every process of some sessions at once, and see them gone."""
    members = [process for process in psutil.process_iter() if session(process) in sessions]
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    see_gone(members)


def see_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait until none of them does anything any more."""
    until = time.monotonic() + START_SECONDS
    while any(map(is_alive, processes)):
        assert time.monotonic() < until, processes
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does anything: one that waits for its parent to look does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def session(process: psutil.Process) -> int | None:
    """The session that a process belongs to, if it is still there."""
    try:
        return os.getsid(process.pid)
    except (ProcessLookupError, PermissionError):
        return None


def free_port() -> int:
    """A port of the head that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        return int(probe.getsockname()[1])


def guard(folder: str) -> None:
    """Wait until standard input, which names the nodes' sessions, ends; then end these."""
    kill({int(line) for line in sys.stdin})
    shutil.rmtree(folder)


if __name__ == "__main__":
    guard(sys.argv[1])
