"""What a number was made with: code, packages, hardware, settings; nothing that names a person.

Left out on purpose: host and user names, absolute paths, and the kernel's release string.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmark.base.paths import ROOT

SCHEMA = 2
ENVIRONMENT = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that may change a number or its cost; no other is recorded."""

_SOURCES = ("--", ".", ":(exclude)results")


def provenance(computing: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a run's provenance; None means not known.

    Device, precision, threads and kernels are for the caller to say: this module has no torch.
    """
    return {
        "schema": SCHEMA,
        **code_version(ROOT),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": "-".join([platform.system(), platform.machine(), *platform.libc_ver()]),
        "cpu": cpu_model(),
        "n_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        **computing,
        "env": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def code_version(root: Path) -> dict[str, object]:
    """Commit, and whether and how the sources under `root` differ from it.

    Results do not count as sources. Everything is None where `root` is not the top of a git
    checkout: installed as a package, perhaps inside somebody else's repository.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(os.fsdecode(top).strip()).resolve() != root.resolve():
        return {"commit": None, "dirty": None, "diff_sha256": None}
    digest = hashlib.sha256()
    diff = _git(root, "diff", "--binary", "--no-ext-diff", "HEAD", *_SOURCES) or b""
    listed = _git(root, "ls-files", "-z", "--others", "--exclude-standard", *_SOURCES) or b""
    names = sorted(filter(None, listed.split(b"\0")))
    untracked = [name for name in names if (root / os.fsdecode(name)).is_file()]
    digest.update(diff)
    for name in untracked:
        digest.update(b"\0" + name + b"\0" + (root / os.fsdecode(name)).read_bytes())
    dirty = bool(diff or untracked)
    return {
        "commit": commit.decode().strip(),
        "dirty": dirty,
        "diff_sha256": digest.hexdigest() if dirty else None,
    }


def packages() -> dict[str, str]:
    """Name and version of every installed distribution, sorted by name."""
    found = importlib.metadata.distributions()
    return dict(sorted((item.name.lower().replace("_", "-"), item.version) for item in found))


def cpu_model() -> str:
    """Marketing name of the processor, or its architecture where the system keeps quiet."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
