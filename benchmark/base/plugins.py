"""Classes and functions named in configurations: imported, checked and built."""

import difflib
import importlib
import inspect
import io
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from benchmark.base.annotations import described, fits, hints
from benchmark.base.errors import BenchmarkError, ConfigError
from benchmark.base.paths import ROOT, display_path

T = TypeVar("T")

_PACKAGES = {"site-packages", "dist-packages"}

MOST_NAMED = 12
"""Names that a message lists where none is near."""


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """A class named "package.module:Class", and its keyword arguments."""

    target: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])


def build(plugin: PluginConfig, base: type[T], where: str) -> T:
    """Instantiate the class that `plugin.target` names with its arguments.

    Raises:
        ConfigError: it cannot be imported, is not a `base`, does not take the arguments, or fails.
    """
    cls = import_class(plugin.target, base, where)
    parameters, types = inspect.signature(cls).parameters, hints(cast(Any, cls).__init__)
    for name, value in plugin.args.items():
        if name not in parameters:
            near = did_you_mean(name, parameters)
            raise ConfigError(f"{where}.args: {plugin.target} has no {name!r}{near}")
        if name in types and not fits(value, types[name]):
            wanted = described(types[name])
            raise ConfigError(f"{where}.args.{name} must be {wanted}, got {value!r}")
    with failures(f"{where}.args: {plugin.target}"):
        return cls(**plugin.args)


def import_class(target: str, base: type[T], where: str) -> type[T]:
    """The subclass of `base` that "package.module:Class" names.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
    """
    cls = _imported(target, f"{where}.target", "package.module:Class")
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ConfigError(f"{where}.target: {target} is not a {base.__name__}")
    return cls


def import_function(path: str, where: str) -> Callable[..., Any]:
    """The function that "module:function" names; `where` is the key that has it.

    Raises:
        ConfigError: it cannot be imported or called.
    """
    function = _imported(path, where, "module:function")
    if not callable(function):
        raise ConfigError(f"{where} {path!r} is not a function")
    return function


def _imported(target: str, where: str, form: str) -> Any:  # noqa: ANN401 - whatever has that name
    """What "module:name" names."""
    module, _, name = target.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ConfigError(f"{where} must be of the form {form!r}, got {target!r}")
    with failures(f"{where}: cannot import {target!r}"):
        return getattr(importlib.import_module(module), name)


@contextmanager
def failures(where: str) -> Iterator[None]:
    """Whatever somebody's code raises is one line; what it says while it exits is left out.

    Raises:
        ConfigError: `where`, what was raised, and the line of their code that raised it.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except KeyboardInterrupt:
        raise
    except BenchmarkError as error:
        raise ConfigError(f"{where}: {error}") from error
    except SystemExit as error:
        said = io.StringIO()
        raise ConfigError(f"{where}: it exits with code {error.code}{_place(error)}") from error
    except BaseException as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ConfigError(f"{where}: {kind}{error}{_place(error)}") from error
    finally:
        sys.stderr.write(said.getvalue())


def _place(error: BaseException) -> str:
    """Where in somebody's code an error comes from; nothing if it comes from none."""
    if isinstance(error, SyntaxError):
        return ""  # it says so itself
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_somebodys(f.filename)]
    if not frames:
        return ""
    return f" ({display_path(Path(frames[-1].filename))}, line {frames[-1].lineno})"


def _is_somebodys(filename: str) -> bool:
    """Whether a file is neither the harness's nor one of Python's or torch's."""
    path = Path(filename)
    is_python = filename.startswith(sysconfig.get_path("stdlib")) and not _PACKAGES & {*path.parts}
    is_other = path.is_relative_to(ROOT / "benchmark") or "torch" in path.parts
    return path.is_file() and not (is_python or is_other)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Ending of a message about an unknown name: the near ones, or all; each after `prefix`."""
    allowed = sorted(known)
    near = difflib.get_close_matches(name, allowed, n=3)
    if near:
        return f"; did you mean {' or '.join(prefix + other for other in near)}?"
    listed = [prefix + other for other in allowed[:MOST_NAMED]]
    more = len(allowed) - len(listed)
    return f"; allowed: {', '.join(listed)}" + (f" and {more} more" if more else "")


def class_path(cls: type) -> str:
    """The name that `import_class` takes."""
    return f"{cls.__module__}:{cls.__qualname__}"
