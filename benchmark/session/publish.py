"""Publishing: what a working folder holds, checked, becomes results that others can rely on.

The published folder is made anew beside its place, from the records alone: planned runs, the plan,
and the report that follows from them. It is audited there, sealed with checksums, and then moved.
"""

import tempfile
from pathlib import Path
from shutil import copyfile

import yaml

from benchmark import audit
from benchmark.base.errors import RecordError
from benchmark.base.paths import display_path
from benchmark.records.events import FINISHED, atomic_write_text
from benchmark.records.folder import (
    SUITE,
    SUMS,
    Suite,
    load_runs,
    load_suite,
    run_ids,
    seal,
    write_run,
)
from benchmark.records.lock import FILE as LOCK
from benchmark.records.lock import Lock, plan_of, read, unlike
from benchmark.report.files import INTERACTIVE, write

NAMED = 3
"""Runs, differences or faults that a refusal spells out."""


def publish(source: Path, published: Path, *, replace: bool = False) -> list[str]:
    """Publish the results in `source` as a folder of `published`, named after the suite.

    Results of another version or plan are only overwritten if `replace` is set.

    Returns:
        What was done, in sentences.

    Raises:
        RecordError: a planned run has not ended, the plan was not kept, what is published is of
            another version or plan, or the audit finds a fault.
    """
    suite, lock = load_suite(source), read(source)
    _require_ended(source, suite)
    target = published / suite.name
    if target.resolve() == source.resolve():
        raise RecordError(f"{display_path(source)}: is the published folder itself")
    before = run_ids(target)
    if (target / LOCK).is_file() and not replace:
        _require_continued(target, lock)
    published.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=published, prefix=".publish-") as scratch:
        fresh = Path(scratch) / suite.name
        left_out = _fill(fresh, source, suite, lock)
        if not replace:
            _copy_runs(target, fresh, before - run_ids(fresh))
        write(fresh)
        (fresh / INTERACTIVE).unlink()
        seal(fresh)
        findings = audit.audit(fresh, without=["report"])  # it was rendered just now
        if faults := [f"{f.name}: {f.detail}" for f in findings if f.status == "failed"]:
            said = f"the audit finds faults, so nothing is published: {_listed(faults)}"
            raise RecordError(said)
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    ids, files = run_ids(target), [path for path in target.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    unnamed = f"left out, as the plan never named them: {_listed(left_out)}"
    return [
        f"{target}: {len(ids)} runs, {len(ids - before)} of them new, {size:.1f} MB",
        *([unnamed] if left_out else []),
        f"audit and report are green; {SUMS} covers every record",
    ]


def _require_ended(source: Path, suite: Suite) -> None:
    waiting = [run for run in suite.runs if run.status not in FINISHED]
    if waiting:
        named = _listed([f"{run.method} seed {run.seed}" for run in waiting])
        raise RecordError(
            f"{display_path(source)}: {len(waiting)} of {len(suite.runs)} planned runs have not "
            f"ended: {named}; growbench run trains them"
        )


def _require_continued(target: Path, lock: Lock) -> None:
    """Refuse results of another plan than the one that is published, with results or before any."""
    old = read(target)
    versions = old.current["version"], lock.current["version"]
    if versions[0] != versions[1]:
        reason = "version {}, these are of {}".format(*versions)
    elif lock.follows(old):
        return
    elif differences := unlike(old.current, lock.current):
        reason = f"another plan: {_listed(differences)}"
    else:
        reason = f"the plan of {old.date}, which that of {lock.date} does not amend"
    raise RecordError(f"{display_path(target)}: is of {reason}; --replace overwrites it")


def _fill(fresh: Path, source: Path, suite: Suite, lock: Lock) -> list[str]:
    """Copy the plan, the planned runs, and those that the plan named once; ids of the others."""
    fresh.mkdir()
    plan = yaml.safe_load((source / SUITE).read_text())
    plan.pop("published", None)
    atomic_write_text(fresh / SUITE, yaml.safe_dump(plan, sort_keys=False))
    for name in (LOCK, "corpus.json"):
        copyfile(source / name, fresh / name)
    once = {
        run.run_id
        for run in load_runs(source, suite.unplanned)
        if (run.method, run.seed) in lock.named()
        and not unlike(lock.current, plan_of([run.config], lock.current["corpus"], ""))
    }
    _copy_runs(source, fresh, {run.run_id for run in suite.runs} | once)
    return [run_id for run_id in suite.unplanned if run_id not in once]


def _copy_runs(source: Path, fresh: Path, ids: set[str]) -> None:
    for run in load_runs(source, sorted(ids)):
        write_run(fresh, run.events, run.config, run.provenance)


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return "; ".join(words[:NAMED]) + more
