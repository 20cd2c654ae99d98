"""YAML and `key=value` texts as a person means them.

Numbers are those of YAML 1.2: `1e-3` is one, `010` is ten, `on` is a word. A mapping that has a key
twice is refused. Where a setting is text it is taken as it was written: `version: 1.10` is "1.10".
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import yaml
from yaml import nodes

from benchmark.base.annotations import inner, options
from benchmark.base.errors import ConfigError
from benchmark.base.paths import display_path

Mapped = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema, and without duplicate keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML declares it

    def construct_mapping(self, node: nodes.MappingNode, deep: bool = False) -> Any:  # noqa: ANN401
        """A mapping, refused where a key stands twice."""
        seen = set[str]()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TextLoader(_Loader):
    """The same, with every scalar as the text that was written."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML declares it


_FLOAT = r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_DIGITS = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)\Z"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?\d[\d_]*\Z"), _DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"({_FLOAT})\Z"), _DIGITS)
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda _, node: int(cast(str, node.value).replace("_", ""))
)


def read(path: Path, schema: type | None = None) -> Mapped:
    """Content of a YAML file.

    Args:
        path: the file.
        schema: the dataclass that it fills, which says what is text.

    Raises:
        ConfigError: it cannot be read, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{display_path(path)}: {reason}") from error
    found = _loaded(text, schema, display_path(path))
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(f"{display_path(path)}: expected a mapping of keys to values")
    return found


def parse(overrides: Iterable[str], schema: type | None = None) -> Mapped:
    """Values of `key=value` texts, nested where a key has dots; of equal keys the last counts.

    Raises:
        ConfigError: a text is not of that form.
    """
    nested: Mapped = {}
    for override in overrides:
        if not re.fullmatch(r"[A-Za-z_][\w.]*=.*", override, re.DOTALL):
            raise ConfigError(f"override {override!r} is not of the form key=value")
        key, _, text = override.partition("=")
        *path, name = key.split(".")
        place, hint = nested, cast(object, schema)
        for part in path:
            place, hint = place.setdefault(part, {}), inner(hint, part)
            if not isinstance(place, dict):
                raise ConfigError(f"override {override!r}: {part} has no settings of its own")
        place[name] = _value(text, inner(hint, name), f"override {override!r}")
    return nested


def _value(text: str, hint: object, where: str) -> Any:  # noqa: ANN401 - whatever YAML says
    """One value; text where `hint` says so, whatever it looks like but for quotes."""
    if _is_text(hint) and text != "null" and text[:1] not in ("'", '"'):
        return text
    return _loaded(text, hint, where)


def _loaded(text: str, schema: object, where: str) -> Any:  # noqa: ANN401 - whatever YAML says
    try:
        typed = yaml.load(text, _Loader)
        written = yaml.load(text, _TextLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
        raise ConfigError(f"{where}: {reason}") from error
    return _as_written(typed, written, schema)


def _as_written(typed: Any, written: Any, hint: object) -> Any:  # noqa: ANN401
    """`typed`, with what was written in place of every scalar that `hint` says is text."""
    if isinstance(typed, dict):
        return {
            key if hint is None else name: _as_written(value, text, inner(hint, name))
            for (key, value), (name, text) in zip(typed.items(), written.items(), strict=True)
        }
    if isinstance(typed, list):
        return [_as_written(a, b, inner(hint, "")) for a, b in zip(typed, written, strict=True)]
    return written if _is_text(hint) and typed is not None else typed


def _is_text(hint: object) -> bool:
    """Whether a value of this annotation is text and nothing else, but for None."""
    kinds: set[object] = {type(of) for o in options(hint) if get_origin(o) is Literal
                          for of in get_args(o)}  # fmt: skip
    kinds |= {o for o in options(hint) if get_origin(o) is not Literal}
    return str in kinds and kinds <= {str, type(None)}
