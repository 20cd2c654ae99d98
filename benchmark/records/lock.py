"""What a comparison was going to be before it began: `plan.lock`, and its dated amendments.

The first command that trains writes the plan: methods, seeds, budget, metric, target loss, tests.
Later commands may plan other seeds, methods or budgets in the same folder; each such change is
appended with its date and the number of results that could be seen by then. With anything else
that runs share, a new plan begins: a folder of one's own may hold now this, now that. It is
publishing that holds a plan: published results are followed only by those of the same plan, or of
one that amends it. Who rewrites the file is found out only if it, or its SHA-256, was published
before the runs.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark.base.errors import RecordError
from benchmark.records.events import atomic_write_text, differences, read_bytes
from benchmark.records.folder import RUNS

FILE = "plan.lock"
METRIC = "bits per byte of the whole test split, every byte scored once; lower is better"
TARGET_LOSS = "the curve bpb that the annealed scratch run of the same seed ends with, at each rung"
TESTS = (
    "difference: paired by seed, mean with a moderated t interval at 95 % (docs/adr/0030)",
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

    old: Plan
    new: Plan

    @property
    def added(self) -> dict[str, list[int]]:
        """Seeds that each method gained."""
        return _gained(self.old, self.new)

    @property
    def removed(self) -> dict[str, list[int]]:
        """Seeds that are no longer planned, by method."""
        return _gained(self.new, self.old)

    @property
    def changed(self) -> dict[str, list[Any]]:
        """Old and new value of whatever else differs, by dotted key."""
        methods = self.old["methods"].keys() & self.new["methods"].keys()
        was, now = (_amendable(plan, methods) for plan in (self.old, self.new))
        return {key: list(values) for key, values in sorted(differences(was, now).items())}

    @property
    def marks(self) -> dict[str, str]:
        """What to say beside each method whose runs changed after results could be seen."""
        if not self.results:
            return {}
        when = f"on {self.date[:10]}, after {self.results} results"
        inner = (key.partition(".") for key in self.changed)
        changed = {rest.rpartition(".")[0] for part, _, rest in inner if part == "methods"}
        words = [(method, "settings changed") for method in sorted(changed)]
        words += [(method, f"{_seeds(gained)} added") for method, gained in self.added.items()]
        words += [(method, f"{_seeds(lost)} removed") for method, lost in self.removed.items()]
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
    amendments: tuple[Amendment, ...]

    @property
    def current(self) -> Plan:
        """The plan in force."""
        return self.amendments[-1].new if self.amendments else self.first

    @property
    def marks(self) -> dict[str, str]:
        """What to say beside each method whose runs changed after results could be seen."""
        said: dict[str, list[str]] = {}
        for amendment in self.amendments:
            for method, mark in amendment.marks.items():
                said.setdefault(method, []).append(mark)
        return {method: "; ".join(marks) for method, marks in said.items()}

    def follows(self, other: "Lock") -> bool:
        """Whether this is the other plan, or that plan with amendments."""
        same = (self.date, self.first) == (other.date, other.first)
        return same and self.amendments[: len(other.amendments)] == other.amendments

    def named(self) -> set[tuple[str, int]]:
        """Method and seed of everything that was planned at some time."""
        plans = [self.first, *(amendment.new for amendment in self.amendments)]
        return {(m, seed) for plan in plans for m, planned in plan["methods"].items()
                for seed in planned["seeds"]}  # fmt: skip


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
        entry = {"role": method["role"], "budget": method["budget"], "settings": settings(method)}
        methods.setdefault(method["name"], entry | {"seeds": []})["seeds"].append(config["seed"])
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
    own = {key: value for key, value in method.items() if key not in described}
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hold(results_dir: Path, plan: Plan) -> None:
    """Lock the plan of a results folder, or amend the one it has; call it before any run.

    A plan whose runs cannot be compared with those of the one before takes its place.

    Raises:
        RecordError: the plan is damaged.
    """
    path, now = results_dir / FILE, datetime.now(UTC).isoformat(timespec="seconds")
    results = _results(results_dir, plan)
    entry = {"date": now, "results": results, "plan": plan}
    lock = read(results_dir) if path.is_file() else None
    if lock is None or unlike(lock.current, plan):
        content = entry | {"amendments": []}
    else:
        change = Amendment(date=now, results=results, old=lock.current, new=plan)
        if not (change.added or change.removed or change.changed):
            return
        content = json.loads(path.read_text())
        content["amendments"].append(entry)
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def read(results_dir: Path) -> Lock:
    """The plan of a results folder.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = results_dir / FILE
    try:
        content = json.loads(read_bytes(path))
        entries = [content, *content.pop("amendments")]
        amendments = tuple(
            Amendment(date=new["date"], results=new["results"], old=old["plan"], new=new["plan"])
            for old, new in pairwise(entries)
        )
        return Lock(
            date=content["date"],
            results=content["results"],
            first=content["plan"],
            amendments=amendments,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: damaged plan: {type(error).__name__}: {error}") from error


def unlike(old: Plan, new: Plan) -> list[str]:
    """What differs of that which all runs of a plan share, in words."""
    parts = ({part: plan[part] for part in FIXED} for plan in (old, new))
    return [f"{key} is {now!r}, was {was!r}" for key, (was, now) in differences(*parts).items()]


def _gained(old: Plan, new: Plan) -> dict[str, list[int]]:
    """Seeds that only the new plan has, by method."""
    known = {method: set(planned["seeds"]) for method, planned in old["methods"].items()}
    gained = {
        method: [seed for seed in planned["seeds"] if seed not in known.get(method, ())]
        for method, planned in new["methods"].items()
    }
    return {method: seeds for method, seeds in gained.items() if seeds}


def _amendable(plan: Plan, methods: Iterable[str]) -> dict[str, Any]:
    """What an amendment may change but for seeds."""
    rest = {key: value for key, value in plan.items() if key not in (*FIXED, "methods")}
    settled = {m: {k: v for k, v in plan["methods"][m].items() if k != "seeds"} for m in methods}
    return rest | {"methods": settled}


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
