"""Suites and methods are what the files of configs/ make of their names.

The files are merged here once more, without the harness's configuration. A name that has no file is
somebody's own method or suite: `plan.lock` alone holds it. What only a method's class knows (its
default optimizer-state policy and re-warm-up) is compared where its file states it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmark.audit.evidence import Evidence, Remark
from benchmark.base.paths import CONFIGS
from benchmark.records.folder import RunRecord

UNSET: dict[str, Any] = {"role": "method", "controls": [], "args": {}, "budget": 1.0, "sizes": {},
                         "tunable": {}, "schedule": None, "ladder": {"n_growths": 0}}  # fmt: skip
"""What a method is whose file says nothing of it."""

LADDER: dict[str, Any] = {"shrink": {}, "start": {}, "n_growths": 1, "path": "linear",
                          "order": "together",
                          "groups": [["d_model", "n_head", "d_ff"], ["n_layer"]]}  # fmt: skip
REWARM: dict[str, Any] = {"start": 0.0, "ratio": 1.0, "length": 0.02, "ratios": []}
"""The same of a ladder and of a re-warm-up."""

WHOLE = ("args", "sizes", "shrink", "start", "tunable", "splits", "space")
"""Groups of settings that hold what their file says and nothing else."""

WORDS = ("name", "summary", "paper")
HULL = {"role": "hull", "target": "baselines.scratch:Scratch"}

Settings = dict[str, Any]


def shipped(evidence: Evidence) -> Iterator[Remark]:
    """Suite and methods are what configs/ says under their names; what differs is named."""
    return compared(evidence, CONFIGS)


def compared(evidence: Evidence, configs: Path) -> Iterator[Remark]:
    """The same against the files in a folder."""
    path = configs / "suite" / f"{evidence.suite.name}.yaml"
    suite = read(path) if path.is_file() else {}
    is_same = not suite or str(suite["version"]) == evidence.suite.version
    if not is_same:
        text = f"configs/suite/{path.name}: is version {suite['version']}, not the one of the runs"
        yield Remark(text, is_fault=False)
    elif suite:
        yield from _suite(evidence, suite)
    for run in {run.method: run for run in reversed(evidence.ran)}.values():
        file, right = _method(run, suite, configs)
        where = f"runs/{run.run_id}.jsonl.gz ({run.method}, seed {run.seed})"
        for key, found, wanted in differences(run.config["method"], right):
            yield Remark(f"{where}: {key} is {found}, {file} has {wanted}", is_fault=is_same)


def _suite(evidence: Evidence, suite: Settings) -> Iterator[Remark]:
    """What the suite is beside its name: other settings are anybody's right, but not unsaid."""
    name = f"configs/suite/{evidence.suite.name}.yaml"
    for key in ("purpose", "watermark"):
        found, right = getattr(evidence.suite, key), suite.get(key)
        if found != (right if right is not None or key == "watermark" else ""):
            yield Remark(f"suite.yaml: {key} is {found!r}, {name} has {right!r}")
    shared = evidence.shared
    protocol = {k: v for k, v in suite.get("protocol", {}).items() if k != "seeds"}
    workload = {k: v for k, v in suite.get("workload", {}).items() if k != "corpus"}
    right = {"protocol": protocol, "workload": workload}
    for key, found, wanted in differences(shared, right):
        yield Remark(f"suite.yaml: {key} is {found}, {name} has {wanted}", is_fault=False)
    corpus, meant = shared["workload"]["corpus"]["name"], suite["workload"].get("corpus")
    if isinstance(meant, str) and corpus != meant:
        yield Remark(f"suite.yaml: corpus is {corpus}, {name} has {meant}", is_fault=False)
    planned = {run.method for run in evidence.suite.runs}
    for method in suite["methods"]:
        if method not in planned:
            yield Remark(f"suite.yaml: {method} is missing, {name} has it", is_fault=False)


def _method(run: RunRecord, suite: Settings, configs: Path) -> tuple[str, Settings]:
    """The file that a run's method comes from, and what it should be; empty if it has none."""
    method = run.config["method"]
    base = method["tunes"] or method["levels"].get("operator") or run.method
    path = configs / "method" / f"{base}.yaml"
    if not path.is_file():
        sizes = [sizes for sizes in suite.get("hull", []) if sizes == method["sizes"]]
        is_hull = method["role"] == "hull" and sizes
        return f"configs/suite/{run.config['suite']}.yaml", HULL if is_hull else {}
    right = resolved(path)
    if method["trial"] is not None:
        right |= {
            "role": "tuning",
            "controls": [],
            "budget": run.config["protocol"]["tuning"]["fraction"],
        }
    for name in method["tuned"].keys() & right["tunable"].keys():
        plugin = right["schedule"] if name.startswith("schedule.") else right
        key, value = name.rpartition(".")[2], method["tuned"][name]
        is_list = isinstance(plugin["args"].get(key), list)
        plugin["args"] = plugin["args"] | {key: [value] if is_list else value}
    if levels := method["levels"]:
        right |= _cell(right, levels, suite.get("factors", {}))
    return f"configs/method/{path.name}", right


def _cell(operator: Settings, levels: Mapping[str, str], factors: Settings) -> Settings:
    """What a cell of a crossed design has else than its operator's method."""
    shrink = dict.fromkeys(operator["ladder"]["shrink"], float(levels["factor"]))
    schedule = {
        "target": "benchmark.growth.schedule:AtFractions",
        "args": {"at": [float(levels["at"])]},
    }
    rewarm = factors.get("rewarm", {}).get(levels["rewarm"])
    return {
        "state_policy": levels["state_policy"],
        "schedule": schedule,
        "ladder": operator["ladder"] | {"shrink": shrink},
        **({"rewarm": REWARM | rewarm} if rewarm else {}),
    }


def resolved(path: Path) -> Settings:
    """A method's file merged over the one it builds upon, and over what an empty one means."""
    raw = read(path)
    parent = raw.pop("defaults", None)
    under = read(path.parent / f"{parent}.yaml") if parent else {}
    under.pop("tunable", None)
    merged = _merged(_merged(UNSET, under), raw)
    merged["ladder"] = _merged(LADDER, merged["ladder"])
    if merged.get("rewarm"):
        merged["rewarm"] = REWARM | merged["rewarm"]
    return {key: value for key, value in merged.items() if key not in WORDS}


def differences(
    found: object, right: object, key: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Key, value found and right value wherever something lacks what it should have."""
    if isinstance(right, Mapping) and isinstance(found, Mapping):
        is_whole = key.rpartition(".")[2] in WHOLE
        for name in {**right, **(found if is_whole else {})}:
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(found.get(name), right.get(name), inner)
    elif found != right:
        yield key, found, right


def read(path: Path) -> Settings:
    """Content of a YAML file."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """One mapping laid over another; lists are values."""
    both = {
        key: _merged(under[key], value)
        if isinstance(value, Mapping) and isinstance(under.get(key), Mapping)
        else value
        for key, value in over.items()
    }
    return {**under, **both}
