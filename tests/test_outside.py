"""An architecture with a size of its own, and a method that grows it, from another package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.records.folder import load_suite

ROOT = Path(__file__).resolve().parent.parent

MODULE = '''
"""Grouped queries (Ainslie et al. 2023, arXiv:2305.13245), whose key-value heads grow."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmark.base.errors import ConfigError, GrowthError
from benchmark.baseline import Baseline
from benchmark.growth import AxisMap, WidthOperator
from benchmark.model import Block, FixedAxis, Transformer
from benchmark.model.kernels import rotate

KV = FixedAxis("kv", 2)


class GroupedBlock(Block):
    """Every key-value head serves n_head / n_kv_head query heads."""

    def __init__(self, make, config):
        super().__init__(make, config)
        if config.n_head % config.n_kv_head:
            raise ConfigError(f"n_kv_head must divide n_head, got {config.n_kv_head}")
        if config.n_query > 1 or config.qk_norm:
            raise ConfigError("n_kv_head takes n_query=1 and qk_norm=false")
        del self.qkv
        self.n_kv_head = config.n_kv_head
        self.q = make.linear(config, ("n_head", "d_head"), ("d_model",))
        self.kv = make.linear(config, (KV, "n_kv_head", "d_head"), ("d_model",))

    def attend(self, x_BTD, rotation_Tk2):
        B, T, _ = x_BTD.shape
        q_BTHK = self.q(x_BTD).view(B, T, self.n_head, -1)
        k_BTGK, v_BTGK = self.kv(x_BTD).view(B, T, 2, self.n_kv_head, -1).unbind(2)
        if rotation_Tk2 is not None:
            q_BTHK = rotate(q_BTHK[:, :, None], rotation_Tk2)[:, :, 0]
            k_BTGK = rotate(k_BTGK[:, :, None], rotation_Tk2)[:, :, 0]
        n = self.n_head // self.n_kv_head
        k, v = (x.repeat_interleave(n, 2).transpose(1, 2) for x in (k_BTGK, v_BTGK))
        y = F.scaled_dot_product_attention(q_BTHK.transpose(1, 2), k, v, is_causal=True)
        return y.transpose(1, 2).flatten(2)


class Grouped(Transformer):
    own_sizes = {"n_kv_head": 1}

    def block(self, config):
        return GroupedBlock(self, config)


@dataclass(frozen=True)
class SplitGroups(WidthOperator):
    """Every key-value head repeated for a part of its query heads: nothing changes."""

    grows = frozenset({"n_kv_head"})
    preserves_function = True

    def axis_map(self, axis, old, new, generator):
        if new % old:
            raise GrowthError(f"n_kv_head must be a multiple of {old}, got {new}")
        return AxisMap.evenly(torch.arange(new) * old // new)

    def prepare(self, small, target, resources):
        if target.n_head % target.n_kv_head:
            raise GrowthError(f"n_kv_head must divide n_head, got {target.n_kv_head}")
        return super().prepare(small, target, resources)


class GrowGroups(Baseline):
    model_class = Grouped

    def __init__(self):
        super().__init__()
        self.operators = (SplitGroups(),)
'''

METHOD = """
name: groups
target: "theirs.grouped:GrowGroups"
sizes: {n_kv_head: n_head}
ladder: {shrink: {n_kv_head: 2}, n_growths: 1}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.5]}}
"""
SUITE = {
    "name": "tiny",
    "version": "1.0",
    "workload": {
        "corpus": "synthetic",
        "batch_size": 4,
        "target": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_head": 8, "d_ff": 32,
                   "seq_len": 16},
    },
    "protocol": {"budget_flops": 3.0e8, "seeds": [0], "n_evaluations": 4, "curve_bytes": 512},
    "methods": ["scratch", "groups"],
    "run": {"workers": 1, "device": "cpu"},
}  # fmt: skip


@pytest.mark.slow
def test_an_architecture_with_a_size_of_its_own_comes_from_another_package(
    tmp_path: Path,
) -> None:
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "grouped.py").write_text(MODULE)
    (tmp_path / "groups.yaml").write_text(METHOD)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SUITE))

    def growbench(*arguments: str) -> str:
        command = [sys.executable, "-m", "benchmark", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "failed" not in growbench("check", "groups.yaml")
    assert "groups" in growbench("plan", "tiny.yaml", "--no-probe")
    growbench("run", "tiny.yaml")
    runs = {run.method: run for run in load_suite(tmp_path / "results/local/tiny").runs}
    assert runs["groups"].status == runs["scratch"].status == "done"
    (growth,) = runs["groups"].of("growth")
    assert (growth["from"]["n_kv_head"], growth["to"]["n_kv_head"]) == (1, 2)
    assert abs(growth["bpb_after"] - growth["bpb_before"]) < 1e-5
    assert "n_kv_head" not in runs["scratch"].of("stage")[0]["sizes"]
    assert "n_kv_head x2 at 49 %" in (tmp_path / "results/local/tiny/report.md").read_text()
