"""Classes and functions named in configurations: imported, checked and built."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omegaconf import MISSING

from benchmark.base.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """A class named "package.module:Class", and its keyword arguments."""

    target: str = MISSING
    args: dict[str, Any] = field(default_factory=dict[str, Any])


def build(plugin: PluginConfig, base: type[T], where: str) -> T:
    """Instantiate the class that `plugin.target` names with its arguments.

    Raises:
        ConfigError: it cannot be imported, is not a `base`, or does not take the arguments.
    """
    cls = import_class(plugin.target, base, where)
    known = [name for name in inspect.signature(cls).parameters if name != "self"]
    for name in plugin.args:
        if name not in known:
            raise ConfigError(
                f"{where}.args: {plugin.target} has no {name!r}{did_you_mean(name, known)}"
            )
    try:
        return cls(**plugin.args)
    except (TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{where}.args: {plugin.target}: {error}") from error


def import_class(target: str, base: type[T], where: str) -> type[T]:
    """The subclass of `base` that "package.module:Class" names."""
    module, _, name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{where}.target: cannot import {target!r}, expected 'package.module:Class': {error}"
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ConfigError(f"{where}.target: {target} is not a {base.__name__}")
    return cls


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Ending of a message about an unknown name: the near ones, or all; each after `prefix`."""
    allowed = sorted(known)
    near = difflib.get_close_matches(name, allowed, n=3)
    names = [prefix + other for other in near or allowed]
    if near:
        return f"; did you mean {' or '.join(names)}?"
    return f"; allowed: {', '.join(names)}"


def class_path(cls: type) -> str:
    """The name that `import_class` takes."""
    return f"{cls.__module__}:{cls.__qualname__}"


def import_function(path: str, where: str) -> Callable[..., Any]:
    """The function that "module:function" names; `where` is the key that has it.

    Raises:
        ConfigError: it cannot be imported or called.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where} must be an importable 'module:function', got {path!r}"
        ) from error
    if not callable(function):
        raise ConfigError(f"{where} {path!r} is not a function")
    return function
