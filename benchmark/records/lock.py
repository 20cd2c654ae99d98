"""What a comparison was going to be before it began: `plan.lock`, and its dated amendments.

The first command that trains writes the plan: methods, seeds, budget, metric, target loss, tests.
Later commands may plan other seeds, methods or budgets in the same folder; each such change is
appended with its date and the number of results that could be seen by then. With anything else
that runs share, a new plan begins: a folder of one's own may hold now this, now that. It is
publishing that holds a plan: published results are followed only by those of the same plan, or of
one that amends it. Each entry's SHA-256 covers the one before it, so that none can be changed or
dropped from between; without the last ones, runs are left that no plan covers. Who rewrites the
whole file is found out only if it, or its SHA-256, was published before the runs.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.base.errors import RecordError
from benchmark.records.events import atomic_write_text, flatten
from benchmark.records.folder import RUNS

FILE = "plan.lock"
METRIC = "bits per byte of the whole test split, every byte scored once; lower is better"
TARGET_LOSS = "the curve bpb that the annealed scratch run of the same seed ends with, at each rung"
TESTS = (
    "difference: paired by seed, mean with Student's t interval at 95 %",
    "significance: exact sign-flip test, Holm's correction over the tests of all methods",
    "better: below zero against scratch, the best fixed size and every control a method names",
)

FIXED = ("suite", "version", "workload", "protocol", "corpus")
"""Parts of a plan that no amendment can change."""

Plan = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Amendment:
    """One change of the plan."""

    date: str
    """UTC, ISO 8601."""

    results: int
    """Runs that had a result by then."""

    added: dict[str, dict[str, Any]]
    """Role, budget, settings and the new seeds of each method that gained some."""

    removed: dict[str, list[int]]
    """Seeds that are no longer planned, by method."""

    changed: dict[str, list[Any]]
    """Old and new value of whatever else differs, by dotted key."""

    @property
    def marks(self) -> dict[str, str]:
        """What to say beside each method whose runs changed after results could be seen."""
        if not self.results:
            return {}
        when = f"on {self.date[:10]}, after {self.results} results"
        inner = (key.partition(".") for key in self.changed)
        changed = {rest.rpartition(".")[0] for part, _, rest in inner if part == "methods"}
        words = [(method, "settings changed") for method in sorted(changed)]
        words += [(m, f"{_seeds(gained['seeds'])} added") for m, gained in self.added.items()]
        words += [(m, f"{_seeds(lost)} removed") for m, lost in self.removed.items()]
        said: dict[str, list[str]] = {}
        for method, what in words:
            said.setdefault(method, []).append(what)
        return {method: f"{' and '.join(parts)} {when}" for method, parts in said.items()}


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The plan of a results folder, from its first version to the one in force."""

    date: str
    results: int
    """Runs that had a result when the plan was first written; 0 if it came before them."""

    first: Plan
    current: Plan
    amendments: tuple[Amendment, ...]
    chain: tuple[str, ...]
    """SHA-256 of the first version and of each amendment."""

    def follows(self, other: "Lock") -> bool:
        """Whether this is the other plan, or that plan with amendments."""
        return self.chain[: len(other.chain)] == other.chain

    def named(self) -> set[tuple[str, int]]:
        """Method and seed of everything that was planned at some time."""
        plans = [self.first["methods"], *(amendment.added for amendment in self.amendments)]
        return {(m, seed) for methods in plans for m in methods for seed in methods[m]["seeds"]}


def plan_of(configs: Iterable[Mapping[str, Any]], corpus: Mapping[str, Any], science: str) -> Plan:
    """What is planned, from the resolved configurations of all runs.

    Args:
        configs: of every run, of one suite.
        corpus: name, SHA-256 and the bytes of each split.
        science: digest of the code that determines results.
    """
    methods: dict[str, dict[str, Any]] = {}
    shared: Mapping[str, Any] = {}
    for config in configs:
        shared, method = config, config["method"]
        planned = methods.setdefault(
            method["name"],
            {
                "role": method["role"],
                "budget": method["budget"],
                "settings": settings(method),
                "seeds": [],
            },
        )
        planned["seeds"].append(config["seed"])
    protocol = dict(shared["protocol"])
    protocol.pop("seeds", None)
    budget_flops = protocol.pop("budget_flops")
    plan = {
        "suite": shared["suite"],
        "version": str(shared["suite_version"]),
        "budget_flops": budget_flops,
        "metric": METRIC,
        "target_loss": TARGET_LOSS,
        "tests": TESTS,
        "methods": methods,
        "workload": shared["workload"],
        "protocol": protocol,
        "corpus": dict(corpus),
        "science": science,
    }
    return json.loads(json.dumps(plan))


def settings(method: Mapping[str, Any]) -> str:
    """Digest of a method's own settings; those that tuning will choose are not known beforehand."""
    if method.get("tunes") and method.get("trial") is None:
        return f"{method['tunes']}, as tuned"
    described = ("summary", "paper")
    return _digest({key: value for key, value in method.items() if key not in described})[:16]


def hold(results_dir: Path, plan: Plan) -> None:
    """Lock the plan of a results folder, or amend the one it has; call it before any run.

    A plan whose runs cannot be compared with those of the one before takes its place.

    Raises:
        RecordError: the plan was tampered with.
    """
    path, results = results_dir / FILE, _results(results_dir, plan)
    lock = read(results_dir) if path.is_file() else None
    if lock is None or unlike(lock.current, plan):
        first = {"date": _now(), "results": results, "plan": plan}
        _write(path, first | {"sha256": _digest(first), "amendments": []})
        return
    change = _difference(lock.current, plan)
    if any(change.values()):
        content = json.loads(path.read_text())
        previous = [content, *content["amendments"]][-1]["sha256"]
        entry = {"date": _now(), "results": results, **change}
        content["amendments"].append(entry | {"sha256": _digest([previous, entry])})
        _write(path, content)


def read(results_dir: Path) -> Lock:
    """The plan of a results folder.

    Raises:
        RecordError: there is none, it is damaged, or it was edited after it was written.
    """
    path = results_dir / FILE
    try:
        content = json.loads(path.read_bytes())
        entries = content.pop("amendments")
        chain = [content.pop("sha256"), *(entry.pop("sha256") for entry in entries)]
        amendments = tuple(Amendment(**entry) for entry in entries)
        lock = Lock(
            date=content["date"],
            results=content["results"],
            first=content["plan"],
            current=_applied(content["plan"], amendments),
            amendments=amendments,
            chain=tuple(chain),
        )
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: damaged plan: {type(error).__name__}: {error}") from error
    expected = [_digest(content)]
    expected += [_digest([sha, entry]) for sha, entry in zip(chain, entries, strict=False)]
    for number, (found, right) in enumerate(zip(chain, expected, strict=True)):
        if found != right:
            part = f"amendment {number}" if number else "the plan"
            raise RecordError(f"{path}: {part} was edited after it was written")
    return lock


def unlike(old: Plan, new: Plan) -> list[str]:
    """What differs of that which all runs of a plan share, in words."""
    was, now = (flatten({part: plan[part] for part in FIXED}) for plan in (old, new))
    return [
        f"{key} is {now.get(key)!r}, was {was.get(key)!r}"
        for key in {**was, **now}
        if was.get(key) != now.get(key)
    ]


def _difference(old: Plan, new: Plan) -> dict[str, Any]:
    """The fields of an amendment that leads from one plan to the other."""
    was, now = old["methods"], new["methods"]
    added, removed = {}, {}
    for method in now:
        seeds = _without(now[method]["seeds"], was.get(method, {}).get("seeds", []))
        if seeds:
            added[method] = now[method] | {"seeds": seeds}
    for method in was:
        seeds = _without(was[method]["seeds"], now.get(method, {}).get("seeds", []))
        if seeds:
            removed[method] = seeds
    skipped = (*FIXED, "methods")
    leaves = [
        {
            **{key: value for key, value in plan.items() if key not in skipped},
            **{
                f"methods.{method}.{key}": plan["methods"][method][key]
                for method in was.keys() & now.keys()
                for key in ("role", "budget", "settings")
            },
        }
        for plan in (old, new)
    ]
    keys = sorted(leaves[0].keys() | leaves[1].keys())
    pairs = {key: [leaves[0].get(key), leaves[1].get(key)] for key in keys}
    changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    return {"added": added, "removed": removed, "changed": changed}


def _applied(plan: Plan, amendments: Iterable[Amendment]) -> Plan:
    """The plan after its amendments."""
    current: Plan = json.loads(json.dumps(plan))
    methods = current["methods"]
    for amendment in amendments:
        for key, (_, value) in amendment.changed.items():
            part, _, rest = key.partition(".")
            if part == "methods":
                method, _, name = rest.rpartition(".")
                methods[method][name] = value
            else:
                current[key] = value
        for method, seeds in amendment.removed.items():
            methods[method]["seeds"] = _without(methods[method]["seeds"], seeds)
        for method, gained in amendment.added.items():
            kept = methods.get(method, {"seeds": []})["seeds"]
            methods[method] = gained | {"seeds": [*kept, *gained["seeds"]]}
        for method in [name for name, planned in methods.items() if not planned["seeds"]]:
            del methods[method]
    return current


def _without(seeds: Iterable[int], others: Iterable[int]) -> list[int]:
    gone = set(others)
    return [seed for seed in seeds if seed not in gone]


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _results(results_dir: Path, plan: Plan) -> int:
    """Runs of this version of the suite that have a result; what cannot be read counts."""
    return sum(_version(path) in (plan["version"], None) for path in results_dir.glob(RUNS))


def _version(path: Path) -> str | None:
    """Version of the suite that the records of a run belong to."""
    try:
        with gzip.open(path, "rt") as log:
            return str(json.loads(log.readline())["suite_version"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(path: Path, content: object) -> None:
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")
