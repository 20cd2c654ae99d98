"""Paths as people read and write them."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Where the harness lies: a clone, or the site-packages that it is installed into."""

CONFIGS = ROOT / "configs"


def display_path(path: Path) -> str:
    """`path` as messages print it: relative to the working folder where it lies below it."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
