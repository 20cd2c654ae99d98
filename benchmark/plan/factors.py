"""A crossed design: operator x optimizer state x re-warm-up x time x growth factor, as methods.

Published methods differ in all five at once. Here every combination of one level of each is a
method of the suite, so that the effect of a factor is read off runs that differ in it alone. The
design is a full factorial but for combinations that no operator can do, which are named.
"""

from dataclasses import replace
from itertools import product

from benchmark.base.errors import ConfigError, SizeError
from benchmark.base.plugins import PluginConfig
from benchmark.plan.config import FactorsConfig, MethodConfig, SuiteConfig, load_method
from benchmark.plan.guard import build_method, sizes_of


def design(suite: SuiteConfig) -> tuple[list[MethodConfig], dict[str, str]]:
    """Every combination of levels, the first factor changing slowest.

    Returns:
        Those that can be trained, and why each of the others cannot, by name.

    Raises:
        ConfigError: a factor without a level, or a level that does not exist.
    """
    methods, left_out = list[MethodConfig](), dict[str, str]()
    if suite.factors is None:
        return methods, left_out
    _check(suite.factors)
    factors, operators = suite.factors, [load_method(name) for name in suite.factors.operator]
    levels = (operators, factors.state_policy, factors.rewarm, factors.at, factors.factor)
    for operator, policy, rewarm, at, factor in product(*levels):
        method = replace(
            _cell({"operator": operator.name, "state_policy": policy, "rewarm": rewarm,
                   "at": f"{at:g}", "factor": f"{factor:g}"}, operator),
            state_policy=policy,
            rewarm=factors.rewarm[rewarm],
            stages=[],
            ladder=replace(operator.ladder, shrink=dict.fromkeys(operator.ladder.shrink, factor)),
            schedule=PluginConfig(
                target="benchmark.growth.schedule:AtFractions", args={"at": [at]}
            ),
        )  # fmt: skip
        if reason := _obstacle(suite, method):
            left_out[method.name] = reason
        else:
            methods.append(method)
    return methods, left_out


def _cell(levels: dict[str, str], operator: MethodConfig) -> MethodConfig:
    """The operator's method under the name and the levels of a cell."""
    words = [levels["operator"], levels["state_policy"], levels["rewarm"]]
    name = "+".join([*words, f"at{levels['at']}", f"x{levels['factor']}"])
    summary = ", ".join(f"{factor} {level}" for factor, level in levels.items())
    return replace(operator, name=name, summary=summary, levels=levels)


def _obstacle(suite: SuiteConfig, method: MethodConfig) -> str | None:
    """Why a method cannot be trained at these levels."""
    if method.ladder.n_growths > 1:
        return f"{method.levels['operator']} grows {method.ladder.n_growths} times, `at` is one"
    plugin = PluginConfig(target=method.target, args=method.args)
    try:
        sizes_of(suite.workload.target, method, build_method(plugin, f"method.{method.name}"))
    except SizeError as error:
        return str(error).removeprefix(f"method.{method.name}: ")
    return None


def _check(factors: FactorsConfig) -> None:
    for name in ("operator", "state_policy", "rewarm", "at", "factor"):
        levels = list(getattr(factors, name))
        if not levels or len(set(levels)) < len(levels):
            raise ConfigError(f"factors.{name} must have distinct levels, at least one: {levels}")
    if still := [name for name in factors.operator if not load_method(name).ladder.n_growths]:
        raise ConfigError(f"factors.operator: every level must grow, but not: {still}")
