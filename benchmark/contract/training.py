"""A method works with what it is given: a small model, training batches, and nothing else.

While a method grows and trains, what Python reports of its code is watched: files that are opened
or mapped, folders that are listed, processes, connections, and searches through all objects in
memory. Reaching for Lightning's trainer, through which all of a run can be found, counts as well.
Not seen are what a module does while it is imported, code that is not Python's (such as a library
in C), and a method that behaves only while it is watched.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from types import FrameType
from typing import Any

import torch

from benchmark.contract.compute import flop_counter
from benchmark.contract.subject import BATCH_SIZE, Subject, Verdict, describe, loss, token_ids
from benchmark.plan.guard import replacements
from benchmark.training.baseline import Baseline
from benchmark.training.evaluate import score
from benchmark.training.optim import build_optimizer

EVENTS = (
    "open", "os.listdir", "os.scandir", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen",
    "gc.get_objects", "gc.get_referrers", "gc.get_referents",
)  # fmt: skip
TRAINER = frozenset({"trainer", "_trainer", "trainers"})
TRUSTED = frozenset({"benchmark", "lightning_fabric", "pytorch_lightning", "torch"})
"""Packages that may ask for the trainer."""

DEVICES = ("/dev/", "/proc/", "/sys/")
IMPORTS = ("importlib._bootstrap", "linecache")
N_STEPS = 3


@dataclass
class _Watch:
    """What code of some packages does."""

    packages: frozenset[str]
    seen: list[str] = field(default_factory=list[str])


_watch: _Watch | None = None
_is_hooked = False


def shared_training(subject: Subject) -> Verdict:
    """Nothing of the shared training is replaced, before a run or in the course of one."""
    if replaced := replacements(subject.baseline):
        return Verdict(False, f"replaces {', '.join(replaced)}, which every method shares")
    for small, large in subject.corners:
        grown = subject.grow(subject.small(small), large)
        frozen = subject.baseline.frozen(small, large)
        baseline = subject.begin(grown, range(N_STEPS), frozen=frozen)
        shared = baseline.fit_spec
        right = _settings(build_optimizer(shared.model, shared.optimizer, shared.moments))
        for when in ("before", "after"):
            if when == "after":
                subject.fit(baseline, grown, range(N_STEPS))
            found = _settings(baseline.optimizer)
            if changed := [key for key in right if found.get(key) != right[key]]:
                said = f"changes the optimizer's {', '.join(changed)} {when} training"
                return Verdict(False, said)
    return Verdict(True, "step, loss, optimizer and its settings")


def training_flops(subject: Subject) -> Verdict:
    """Whole steps take what the model takes, whatever a method does in the course of them.

    What the model takes is held to the ledger's formula by another check.
    """
    for small, large in subject.corners:
        grown = subject.grow(subject.small(small), large)
        frozen = subject.baseline.frozen(small, large)
        baseline = subject.begin(grown, range(N_STEPS), frozen=frozen)
        with flop_counter() as alone:
            loss(grown.model).backward()
        grown.model.zero_grad()
        with flop_counter() as counter:
            subject.fit(baseline, grown, range(N_STEPS))
        found, right = counter.get_total_flops(), N_STEPS * alone.get_total_flops()
        if found != right:
            said = f"{N_STEPS} steps take {found} FLOPs, those of the model {right}"
            return Verdict(False, f"{said}: {describe(small, large)}", float(found))
    return Verdict(True, f"{N_STEPS} steps, what goes on around the model included")


def evaluation(subject: Subject) -> Verdict:
    """Scoring a model leaves no trace in what it learns afterwards."""
    for small, large in subject.corners:
        frozen = subject.baseline.frozen(small, large)
        ends, started = [], subject.grow(subject.small(small), large)
        for is_scored in (False, True):
            grown = copy.deepcopy(started)
            subject.train(grown, range(N_STEPS), frozen=frozen)
            if is_scored:
                score(grown.model, token_ids(large).flatten().to(torch.uint8), BATCH_SIZE)
            subject.train(grown, range(N_STEPS, 2 * N_STEPS), frozen=frozen)
            ends.append(grown.model.state_dict())
        changed = [name for name, end in ends[0].items() if not torch.equal(end, ends[1][name])]
        if changed:
            said = f"{changed[0]} learns otherwise once the model was scored"
            return Verdict(False, f"{said}: {describe(small, large)}")
    return Verdict(True, f"{N_STEPS} steps before and after")


def seclusion(subject: Subject) -> Verdict:
    """Growing and training open no file, ask for no trainer, and look at no other object."""
    small, large = subject.pairs[0]
    model = subject.small(small)
    with _watched(_packages(subject)) as seen:
        operators = subject.build().operators
        grown = subject.grow(model, large, operators=operators)
        frozen = subject.baseline.frozen(small, large)
        baseline = subject.begin(grown, range(N_STEPS), frozen=frozen)
        baseline.__class__ = _listening(type(baseline))
        subject.fit(baseline, grown, range(N_STEPS))
    if seen:
        return Verdict(False, f"the method {seen[0]}: it is given training batches only")
    return Verdict(True, "no file, no trainer, no other object")


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What the optimizer does with each of its parameters; the rate is the schedule's."""
    return {
        f"{key} of group {number}": (len(value) if key == "params" else value)
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key != "lr"
    }


def _packages(subject: Subject) -> frozenset[str]:
    """Top-level packages that the method's code lies in."""
    baseline = subject.baseline
    operators = [type(operator) for operator in baseline.operators]
    classes = [type(baseline), *operators, baseline.model_class, subject.source_class]
    homes = {base.__module__.partition(".")[0] for cls in classes for base in cls.__mro__}
    return frozenset(homes - TRUSTED - sys.stdlib_module_names)


def _listening(cls: type[Baseline]) -> type[Baseline]:
    """The class, reporting who asks for its trainer."""

    def getattribute(self: Baseline, name: str) -> object:
        if name in TRAINER and _watch is not None and _package(sys._getframe(1)) not in TRUSTED:
            _watch.seen.append(f"asks for its {name}")
        return object.__getattribute__(self, name)

    return type(cls.__name__, (cls,), {"__getattribute__": getattribute})


@contextmanager
def _watched(packages: frozenset[str]) -> Iterator[list[str]]:
    """Collect what code of these packages does inside the block."""
    global _watch, _is_hooked  # noqa: PLW0603 - a hook cannot be removed, only told to rest
    if not _is_hooked:
        sys.addaudithook(_hook)
        _is_hooked = True
    mapped, watch = torch.from_file, _Watch(packages)  # in C++, of which Python reports nothing

    @wraps(mapped)
    def reported(filename: str, *args: object, **kwargs: object) -> torch.Tensor:
        watch.seen.append(f"maps {filename}")
        return mapped(filename, *args, **kwargs)  # type: ignore[arg-type]

    torch.from_file, _watch = reported, watch
    try:
        yield watch.seen
    finally:
        torch.from_file, _watch = mapped, None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watch is None or event not in EVENTS:
        return
    what = str(args[0]) if args else ""
    is_device = event == "open" and (isinstance(args[0], int) or what.startswith(DEVICES))
    if not is_device and _is_by(_watch.packages, sys._getframe(1)):
        done = "opens" if event == "open" else f"calls {event} on" if what else f"calls {event}"
        _watch.seen.append(f"{done} {what}".rstrip())


def _is_by(packages: frozenset[str], frame: FrameType | None) -> bool:
    """Whether code of the packages is at work, and not an import."""
    found = False
    while frame is not None and frame.f_globals.get("__name__") != __name__:
        if frame.f_globals.get("__name__") in IMPORTS:
            return False
        found |= _package(frame) in packages
        frame = frame.f_back
    return found


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
