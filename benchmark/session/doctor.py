"""Whether this machine can train a suite, and how fast: what is wrong, and what to do about it.

Nothing is downloaded, and nothing kept but compiled code. What is measured fills a machine file.
"""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from benchmark.base.plugins import class_path
from benchmark.data.corpora import load
from benchmark.model.compiled import compile_seconds, keep_code, require_compiler
from benchmark.model.kernels import set_float32_products
from benchmark.model.transformer import Transformer
from benchmark.plan.config import MachineConfig, SuiteConfig, is_compiled
from benchmark.plan.run import Run
from benchmark.plan.spec import StageSpec
from benchmark.plan.suite import plan
from benchmark.records.provenance import cpu_model
from benchmark.report import formats
from benchmark.session.outlook import Machine, median_seconds, step_seconds
from benchmark.stage.process import prepare_process
from benchmark.training.memory import device_bytes

GPU = Path("/dev/nvidia0")
"""By this Linux shows that there is an NVIDIA GPU, whatever its driver can do."""

STEPS = 20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    status: str
    """passed, note, or failed: what keeps the suite from training."""

    name: str
    detail: str


class Doctor:
    """Looks at this machine for one suite, whose corpus need not be here."""

    def __init__(self, suite: SuiteConfig) -> None:
        self.suite, self.cache = suite, Path(suite.run.cache).expanduser()
        prepare_process(threads=1)
        self.runs = planned(suite)
        self.device = self.runs[0].device
        self.compiles = is_compiled(suite.run.compile, self.device)
        self.specs = [spec for run in self.runs for spec, _ in run.predicted()]
        n_here = torch.cuda.device_count() if self.device == "cuda" else os.cpu_count()
        self.workers = suite.run.workers or n_here or 1

    def examine(self) -> Iterator[Finding]:
        """What must be there before anything trains, in turn."""
        yield from gpu(self.device, is_asked=self.suite.run.device != "cpu")
        yield self._compiler()
        yield self._memory()
        yield self._disk()
        corpus = self.suite.workload.corpus
        text = self.cache / "corpora" / corpus.name / f"{corpus.sha256}.bin"
        if corpus.kind == "download" and not text.is_file():
            yield Finding("note", "corpus", f"{corpus.name} will be downloaded from {corpus.url}")

    def _compiler(self) -> Finding:
        if not self.compiles:
            return Finding("note", "compile", "steps are not compiled (run.compile)")
        keep_code(self.cache / "compiled", self.device)
        started = time.perf_counter()
        try:
            require_compiler(self.device)
            torch.compile(lambda x: -x)(torch.ones(8, device=self.device))
        except Exception as error:  # noqa: BLE001 - of the compiler, whatever it is
            words = f"{' '.join(str(error).split())[:300]}; or train without: run.compile=false"
            return Finding("failed", "compile", words)
        took = formats.seconds(time.perf_counter() - started)
        return Finding("passed", "compile", f"a small function in {took}")

    def _memory(self) -> Finding:
        """Whether one window at a time of the largest model fits."""
        memory = psutil.virtual_memory()
        is_gpu = self.device == "cuda"
        free, total = torch.cuda.mem_get_info() if is_gpu else (memory.available, memory.total)
        largest = max(self.specs, key=lambda spec: spec.step_bytes(spec.batch_size))
        n_micro = largest.micro_batches(free)
        need = largest.step_bytes(n_micro)
        detail = (
            f"the largest model takes about {formats.memory(need)}"
            + f" in {n_micro} micro-batches" * (n_micro > 1)
            + f"; {formats.memory(free)} of {formats.memory(total)} are free"
        )
        if need <= free:
            return Finding("passed", "memory", detail)
        cure = "end what else uses it" if need <= total else "take a smaller workload.target"
        return Finding("failed", "memory", f"{detail}: {cure}")

    def _disk(self) -> Finding:
        """Whether a parent and a child of each worker's stage fit, beside the corpus."""
        here = self.cache.absolute()
        place = next(folder for folder in (here, *here.parents) if folder.is_dir())
        free, limit = shutil.disk_usage(place).free, self.suite.run.cache_gigabytes
        largest = 12 * max(spec.n_params for spec in self.specs)
        least = 2 * largest * self.workers + 2 * self.suite.workload.corpus.size
        detail = (
            f"{free / 1e9:.3g} GB free for {self.suite.run.cache}, at least {least / 1e9:.2g}; "
            f"a checkpoint takes up to {largest / 1e9:.2g} GB, all {limit:g} (run.cache_gigabytes)"
        )
        if free < least:
            return Finding("failed", "disk", f"{detail}: free some, or set run.cache elsewhere")
        return Finding("note" if free < 1e9 * limit else "passed", "disk", detail)

    def measure(self, name: str = "measured") -> MachineConfig:
        """This machine as `plan --machine` knows machines: products and training steps, timed."""
        is_gpu, precision = self.device == "cuda", self.suite.protocol.precision
        peak = {p: product_rate(self.device, p) for p in {"32-true", precision}}
        kinds = ["eager", "compiled"] if self.compiles else ["eager"]
        utilisation: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
        before = compile_seconds() if self.compiles else 0.0
        specs = self._narrow_and_wide()
        for kind, (d_model, spec) in itertools.product(kinds, specs.items()):
            compiles = kind == "compiled"
            step = step_seconds(spec, spec.batch_size, STEPS, updates=True, compiles=compiles)
            share = spec.step_flops / step / peak[precision]
            utilisation[kind][str(d_model)] = min(1.0, _rounded(share))
        spent = compile_seconds() - before if self.compiles else 0.0
        memory = device_bytes(self.device) if is_gpu else psutil.virtual_memory().total
        what = torch.cuda.get_device_name() if is_gpu else cpu_model()
        return MachineConfig(
            name=name,
            summary=f"{formats.plural(self.workers, 'GPU' if is_gpu else 'core')}, {what}",
            device="cuda" if is_gpu else "cpu",
            workers=self.workers,
            memory_gigabytes=_rounded(memory / 1e9 / (1 if is_gpu else self.workers)),
            peak={key: _rounded(rate) for key, rate in peak.items()},
            utilisation=utilisation,
            layer_seconds=0.0,
            stage_seconds=2.0 if is_gpu else 0.5,
            compile_seconds=_rounded(spent / len(specs)),
            basis=f"measured by growbench doctor {self.suite.name}, but for starts of stages",
            dollars_per_hour=0.0,
            price="fill in dollars_per_hour",
        )

    def _narrow_and_wide(self) -> dict[int, StageSpec]:
        """Stages of the narrowest and of the largest plain model, by d_model."""
        plain = [spec for spec in self.specs if spec.model_class == class_path(Transformer)]
        specs = sorted(plain or self.specs, key=lambda spec: spec.step_flops)
        narrow = min(specs, key=lambda spec: int(spec.model["d_model"]))
        return {int(spec.model["d_model"]): spec for spec in (narrow, specs[-1])}

    def speeds(self, machine: MachineConfig) -> Iterator[Finding]:
        """What the measured steps come to."""
        measured = Machine(machine, self.compiles)
        for d_model, spec in self._narrow_and_wide().items():
            step = measured.step(spec.step_flops, d_model, 0, spec.precision)
            rate = spec.batch_size * int(spec.model["seq_len"]) / step
            share = formats.percent(measured.utilisation(d_model))
            yield Finding("passed", "steps", (
                f"d_model {d_model}, {spec.model['n_layer']} layers: {formats.seconds(step)}, "
                f"{formats.count(rate)} tokens a second, {share} of a large product's rate, "
                f"{formats.flops(measured.peak(spec.precision))} FLOP/s"
            ))  # fmt: skip


def planned(suite: SuiteConfig) -> list[Run]:
    """The runs of a suite, its corpus known by its manifest alone if that says enough."""
    corpus = suite.workload.corpus
    if corpus.size and corpus.kind != "tokens":
        val, test = corpus.splits.offsets(corpus.size)
        lengths = {"train": val, "val": test - val, "test": corpus.size - test}
    else:
        lengths = load(corpus, Path(suite.run.cache).expanduser() / "corpora").lengths()
    return plan(suite, {"corpus": corpus.name, "sha256": corpus.sha256, **lengths})


def gpu(device: str, *, is_asked: bool) -> Iterator[Finding]:
    """Driver and CUDA, of a GPU that is to be used if `is_asked`."""
    said = _ask_driver()
    if said is None and not GPU.exists():
        yield Finding("note", "driver", f"no NVIDIA GPU here: {os.cpu_count()} cores would train")
        return
    if said is None:
        yield Finding("failed" if is_asked else "note", "driver", (
            f"there is a GPU ({GPU}), but nvidia-smi does not answer: install its driver; in a "
            "container, pass GPU and driver in (docker run --gpus all)"
        ))  # fmt: skip
    else:
        yield Finding("passed", "driver", said)
    if device == "cuda":
        found = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
        yield Finding("passed", "CUDA", f"{torch.version.cuda}, {found}")
    else:
        yield Finding("failed" if is_asked else "note", "CUDA", _why_cuda_fails())


def _ask_driver() -> str | None:
    """Name, driver and memory of each GPU, as nvidia-smi tells; None if it does not."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return "; ".join(done.stdout.split("\n")).strip("; ") if done.returncode == 0 else None


def _why_cuda_fails() -> str:
    """Why PyTorch has no CUDA where there is a GPU, and what to do."""
    try:
        torch.cuda.init()
        why = "no GPU is visible (CUDA_VISIBLE_DEVICES)"
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())
    return (
        f"PyTorch {torch.__version__}, for CUDA {torch.version.cuda}, does not start it: {why}; "
        "update the driver, or install a PyTorch for the CUDA that nvidia-smi names, or train on "
        "the CPU: run.device=cpu"
    )


def product_rate(device: str, precision: str) -> float:
    """FLOP/s of a large product of matrices."""
    set_float32_products(precision)
    n, dtype = 8192 if device == "cuda" else 1024, torch.float32
    x = torch.ones(n, n, device=device, dtype=torch.bfloat16 if "bf16" in precision else dtype)
    return 2 * n**3 / median_seconds(lambda: torch.mm(x, x), x.device, STEPS)


def _rounded(x: float) -> float:
    return float(f"{x:.3g}")
