"""YAML and `key=value` texts as a person means them, laid over one another, made into dataclasses.

Numbers are those of YAML 1.2: `1e-3` is one, `010` is ten, `on` is a word. A mapping that has a key
twice is refused. Where a setting is text it is taken as it was written: `version: 1.10` is "1.10".
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from yaml import nodes

from benchmark.base.annotations import described, fits, hints, inner, options
from benchmark.base.errors import ConfigError
from benchmark.base.paths import display_path
from benchmark.base.plugins import did_you_mean

Mapped = dict[str, Any]
T = TypeVar("T")


class _Loader(yaml.CSafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema."""

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
    """Content of a YAML file; the dataclass that it fills says what is text.

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
        of, is_quoted = inner(hint, name), text[:1] in ("'", '"')
        is_plain = _is_text(of) and text != "null" and not is_quoted
        place[name] = text if is_plain else _loaded(text, of, f"override {override!r}")
    return nested


def _loaded(text: str, hint: object, where: str) -> Any:  # noqa: ANN401 - whatever YAML says
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _built(loader, node, hint)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
        raise ConfigError(f"{where}: {reason}") from error


def _built(loader: _Loader, node: nodes.Node, hint: object) -> Any:  # noqa: ANN401
    """What a node stands for; what was written where `hint` says that it is text."""
    if isinstance(node, nodes.MappingNode):
        found: dict[Any, Any] = {}
        for name, value in node.value:
            key = loader.construct_object(name) if hint is None else name.value
            if key in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name.value!r} stands twice", name.start_mark
                )
            found[key] = _built(loader, value, inner(hint, key))
        return found
    if isinstance(node, nodes.SequenceNode):
        return [_built(loader, value, inner(hint, "")) for value in node.value]
    typed = loader.construct_object(node)
    return node.value if typed is not None and _is_text(hint) else typed


def _is_text(hint: object) -> bool:
    """Whether a value of this annotation is text and nothing else, but for None."""
    kinds: set[object] = {type(of) for o in options(hint) if get_origin(o) is Literal
                          for of in get_args(o)}  # fmt: skip
    kinds |= {o for o in options(hint) if get_origin(o) is not Literal}
    return str in kinds and kinds <= {str, type(None)}


def filled(schema: type[T], *layers: tuple[str, Mapped], where: str | None = None) -> T:
    """The dataclass that some mappings describe, later ones over earlier ones; lists are values.

    Args:
        schema: the dataclass.
        layers: what messages about a mapping begin with, such as "a.yaml: ", and the mapping.
        where: what messages about something missing begin with; that of the last layer if None.

    Raises:
        ConfigError: naming the key, what was found, and what is allowed.
    """
    origins = {key: begin for begin, layer in layers for key in _paths(layer)}
    where = layers[-1][0] if where is None else where
    return cast(T, _Filling(schema, where, origins).fill(_merged(layers), schema))


def _merged(layers: Sequence[tuple[str, Mapped]]) -> Mapped:
    """Mappings laid over one another by OmegaConf.

    It is given each leaf's number in place of the leaf: `${...}` and `???` are text to us.
    """
    if len(layers) == 1:
        return layers[0][1]
    leaves = list[object]()

    def number(leaf: object) -> int:
        leaves.append(leaf)
        return len(leaves) - 1

    numbered = (OmegaConf.create(_with_leaves(layer, number)) for _, layer in layers)
    merged = OmegaConf.to_container(OmegaConf.unsafe_merge(*numbered))
    return cast(Mapped, _with_leaves(merged, leaves.__getitem__))


def _with_leaves(value: Any, change: Callable[[Any], object]) -> Any:  # noqa: ANN401 - YAML
    """A mapping with what is made of each of its leaves."""
    if isinstance(value, dict):
        return {key: _with_leaves(inside, change) for key, inside in value.items()}
    return change(value)


def _paths(layer: Mapped, prefix: str = "") -> Iterator[str]:
    """Full names of everything that a mapping holds."""
    for name, value in layer.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")


@dataclass(frozen=True)
class _Filling:
    """Values on their way into a dataclass."""

    schema: type
    where: str
    """Begins messages about what nobody says."""

    origins: dict[str, str]
    """What messages about a key begin with."""

    def fill(self, value: Any, hint: object, key: str = "", default: object = None) -> Any:  # noqa: ANN401
        """A value as its annotation has it, over the `default` of its field."""
        schema = next((option for option in options(hint) if is_dataclass(option)), None)
        if isinstance(value, dict) and schema is not None:
            return self._dataclass(cast(type, schema), value, key, default)
        if isinstance(value, dict) and get_origin(hint) is dict:
            return {k: self.fill(v, inner(hint, ""), f"{key}.{k}") for k, v in value.items()}
        if isinstance(value, list) and get_origin(hint) is list:
            return [self.fill(v, inner(hint, ""), f"{key}[{i}]") for i, v in enumerate(value)]
        if not fits(value, hint):
            found = "nothing" if value is None else repr(value)
            raise self._error(key, f"{key} must be {described(hint)}, got {found}")
        return float(value) if type(value) is int and _is_float(hint) else value

    def _dataclass(self, schema: type, values: Mapped, key: str, default: object) -> object:
        """A dataclass; what `values` does not say is as in `default`, or as declared."""
        base = default if isinstance(default, schema) else None
        prefix = f"{key}." if key else ""
        known = {entry.name: entry for entry in fields(schema)}
        for name in values:
            if name not in known:
                raise self._error(prefix + name, self._unknown(name, prefix, known))
        given, types = dict[str, Any](), hints(schema)
        for name, entry in known.items():
            factory = entry.default_factory
            declared = entry.default if factory is MISSING else factory()
            below = declared if base is None else getattr(base, name)
            if name in values:
                given[name] = self.fill(values[name], types[name], prefix + name, below)
            elif below is MISSING:
                raise ConfigError(f"{self.where}{prefix}{name} is missing")
        try:
            return schema(**given) if base is None else replace(cast(Any, base), **given)
        except ConfigError as error:
            raise self._error(key, str(error)) from error

    def _unknown(self, name: str, prefix: str, known: Iterable[str]) -> str:
        """Message about a name that a dataclass does not have: where it is, or a near one."""
        elsewhere = [key for key in _keys(self.schema) if key.endswith(f".{name}")]
        near = f"; did you mean {' or '.join(elsewhere)}?"
        return (
            f"unknown key {prefix}{name}{near if elsewhere else did_you_mean(name, known, prefix)}"
        )

    def _error(self, key: str, text: str) -> ConfigError:
        """An error about a key, or about what it holds, that begins with who said it."""
        while key and key not in self.origins:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return ConfigError(f"{self.origins.get(key, self.where)}{text}")


def _keys(schema: object, prefix: str = "") -> Iterator[str]:
    """Full names of all settings."""
    for name, hint in hints(schema).items():
        yield f"{prefix}{name}"
        for option in options(hint):
            if is_dataclass(option):
                yield from _keys(option, f"{prefix}{name}.")


def _is_float(hint: object) -> bool:
    """Whether an annotation asks for a number that need not be whole."""
    kinds = [get_args(of)[0] if get_origin(of) is Annotated else of for of in options(hint)]
    return float in kinds and int not in kinds
