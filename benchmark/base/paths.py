"""Names and paths as people read and write them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from benchmark.base.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
"""Where the harness lies: a clone, or the site-packages that it is installed into."""

CONFIGS = ROOT / "configs"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NO_NAMES = ("nan", "na", "n/a", "null", "none", "inf", "true", "false", "local")
"""Names that a table would read as something else, or that a folder has already."""


def display_path(path: Path) -> str:
    """`path` as messages print it: relative to the working folder where it lies below it."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def check_name(name: str, where: str, reserved: Sequence[str] = NO_NAMES) -> None:
    """Refuse a name that a page, a table or a folder cannot carry."""
    if not NAME.fullmatch(name) or name.lower() in reserved:
        raise ConfigError(
            f"{where} must be letters, digits, '_', '-' and '.', a letter or digit first, and no "
            f"word such as nan; got {name!r}"
        )
