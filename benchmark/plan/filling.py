"""Mappings, as YAML and overrides give them, laid over one another and made into a dataclass."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

from omegaconf import OmegaConf

from benchmark.base.annotations import described, fits, hints, inner, options
from benchmark.base.errors import ConfigError
from benchmark.base.plugins import did_you_mean
from benchmark.plan.reading import Mapped

T = TypeVar("T")


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
    laid = _Laid(layers[-1][0] if where is None else where, origins)
    return cast(T, _Filling(schema, laid).fill(_merged(layers), schema))


def _merged(layers: Sequence[tuple[str, Mapped]]) -> Mapped:
    """Mappings laid over one another by OmegaConf.

    It is given each leaf's number in place of the leaf: `${...}` and `???` are text to us.
    """
    leaves = list[object]()

    def numbered(value: Any) -> Any:  # noqa: ANN401 - whatever YAML says
        if isinstance(value, dict):
            return {key: numbered(inside) for key, inside in value.items()}
        leaves.append(value)
        return len(leaves) - 1

    def restored(value: Any) -> Any:  # noqa: ANN401 - whatever YAML says
        if isinstance(value, dict):
            return {key: restored(inside) for key, inside in value.items()}
        return leaves[value]

    merged = OmegaConf.merge(*(OmegaConf.create(numbered(layer)) for _, layer in layers))
    return cast(Mapped, restored(OmegaConf.to_container(merged)))


def _paths(layer: Mapped, prefix: str = "") -> Iterator[str]:
    """Full names of everything that a mapping holds."""
    for name, value in layer.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")


@dataclass(frozen=True)
class _Laid:
    """Which of some mappings said what."""

    where: str
    """Begins messages about what none of them says."""

    origins: dict[str, str]
    """What messages about a key begin with."""

    def origin(self, key: str) -> str:
        """What a message about a key, or about what it holds, begins with."""
        while key and key not in self.origins:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.origins.get(key, self.where)


@dataclass(frozen=True)
class _Filling:
    """Values on their way into a dataclass."""

    schema: type
    laid: _Laid

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
            below = _default(entry) if base is None else getattr(base, name)
            if name in values:
                given[name] = self.fill(values[name], types[name], prefix + name, below)
            elif below is MISSING:
                raise ConfigError(f"{self.laid.where}{prefix}{name} is missing")
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
        return ConfigError(f"{self.laid.origin(key)}{text}")


def _keys(schema: object, prefix: str = "") -> Iterator[str]:
    """Full names of all settings."""
    for name, hint in hints(schema).items():
        yield f"{prefix}{name}"
        for option in options(hint):
            if is_dataclass(option):
                yield from _keys(option, f"{prefix}{name}.")


def _default(entry: Field[Any]) -> object:
    """What a field holds if nothing is said; MISSING if something must be."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _is_float(hint: object) -> bool:
    """Whether an annotation asks for a number that need not be whole."""
    kinds = [get_args(of)[0] if get_origin(of) is Annotated else of for of in options(hint)]
    return float in kinds and int not in kinds
