"""Commented files to start from: a suite, or a method."""

from pathlib import Path

from benchmark.base.errors import ConfigError
from benchmark.base.paths import check_name, display_path

TEMPLATES = Path(__file__).with_name("templates")
KINDS = {"suite": ("suite.yaml",), "method": ("method.py", "method.yaml")}


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the files of a new suite or method.

    Raises:
        ConfigError: an unknown kind, a name that cannot be one, or files that are there already.
    """
    if kind not in KINDS:
        raise ConfigError(f"new: there is suite and method, got {kind!r}")
    check_name(name, "the name")
    if kind == "method" and not name.isidentifier():
        raise ConfigError(f"the name of a method's module must be a Python name, got {name!r}")
    paths = {folder / f"{name}{Path(file).suffix}": TEMPLATES / file for file in KINDS[kind]}
    if there := [display_path(path) for path in paths if path.exists()]:
        raise ConfigError(f"{there[0]}: is there already; nothing was written")
    for path, template in paths.items():
        path.write_text(template.read_text(encoding="utf-8").replace("NAME", name), "utf-8")
    return list(paths)
