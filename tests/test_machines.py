"""The cost model of machines that are not there: by hand, and on the page that quotes it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import prepare
from typer.testing import CliRunner

from benchmark.base.errors import ConfigError
from benchmark.cli.main import app
from benchmark.model.cost import training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import MachineConfig, available, find, load_machine, load_suite
from benchmark.session.outlook import Machine
from benchmark.session.session import Session

ROOT = Path(__file__).resolve().parent.parent
CONFIG = MachineConfig(
    name="round",
    summary="a machine of round numbers",
    workers=2,
    peak={"32-true": 1e9},
    utilisation=0.5,
    layer_seconds=0.01,
    stage_seconds=3.0,
    basis="made up",
    dollars_per_hour=7.2,
    price="made up",
)
ROW = re.compile(
    r"^\| (\d+) \| (\d+) \| ([\d.]+) M \| ([\d.e+]+) \| ([\d,.]+) \| ([\d,.]+) \|$", re.M
)


def test_a_step_takes_its_arithmetic_or_its_launches_whichever_is_longer() -> None:
    machine = Machine(CONFIG)
    assert machine.step(1e9, n_layer=2, precision="32-true") == 2.0
    assert machine.step(1e6, n_layer=2, precision="32-true") == 0.02


def test_a_stage_takes_its_steps_its_evaluations_and_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    (run,) = Session(load_suite("tiny.yaml", ["methods=[scratch]"])).runs
    spec = run.next_stage([])
    assert spec is not None
    spec = replace(spec, marks=(1.0, 2.0), splits=("val",))
    n_bytes = 3 * 512 + spec.data["val"]
    per_byte = spec.step_flops / (4 * 32) / 3 / 0.5e9
    machine = Machine(replace(CONFIG, layer_seconds=0.0))
    expected = 3.0 + 10 * spec.step_flops / 0.5e9 + n_bytes * per_byte
    assert machine.seconds(spec, 10) == pytest.approx(expected)


def test_a_precision_that_the_machine_has_no_figure_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="round has no peak for precision bf16-mixed"):
        Machine(CONFIG).step(1.0, 1, "bf16-mixed")


@pytest.mark.parametrize(
    ("key", "value"),
    [("utilisation", "0"), ("workers", "0"), ("layer_seconds", "-1"), ("dollars_per_hour", ".nan")],
)
def test_a_machine_without_any_speed_is_refused(tmp_path: Path, key: str, value: str) -> None:
    text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", find("machine", "cpu").read_text())
    (tmp_path / "machine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"machine\.yaml: {key} must be .* in .*, got"):
        load_machine(str(tmp_path / "machine.yaml"))


@pytest.mark.parametrize("name", available("machine"))
def test_every_machine_can_be_read_and_names_itself(name: str) -> None:
    config = load_machine(name)
    assert config.name == name
    assert config.dollars_per_hour > 0


def test_plan_tells_time_price_and_what_it_assumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    told = CliRunner().invoke(app, ["plan", "tiny.yaml", "--machine", "h100"])
    assert told.exit_code == 0, told.output
    assert "on one NVIDIA H100 SXM, 80 GB: " in told.output
    assert "dollars at 3 an hour (an assumed on-demand price of one GPU)" in told.output
    assert "assumed but for the peak, not measured: steps reach 30.0 % of" in told.output
    assert "predicted time" not in told.output


def test_the_page_on_scaling_quotes_the_cost_model() -> None:
    machine = Machine(load_machine("h100"))
    rows = ROW.findall((ROOT / "docs" / "scaling.md").read_text())
    assert len(rows) == 4
    for row in rows:
        d_model, n_layer = map(int, row[:2])
        assert row[2:] == quoted(machine, d_model, n_layer)


def quoted(machine: Machine, d_model: int, n_layer: int) -> tuple[str, ...]:
    """Cells of the page's table: parameters, C*, hours of a run, dollars of 90 runs."""
    model = Transformer.shell(
        ModelConfig(d_model=d_model, n_layer=n_layer, n_head=d_model // 64, d_head=64,
                    d_ff=4 * d_model, seq_len=1024)
    )  # fmt: skip
    n_params = sum(parameter.numel() for parameter in model.parameters())
    per_token = training_flops_per_token(model)
    step_flops, budget = 64 * 1024 * per_token, 20 * n_params * per_token
    hours = budget / step_flops * machine.step(step_flops, n_layer, "bf16-mixed") / 3600
    dollars = 90 * hours * machine.config.dollars_per_hour
    digits = 1 if hours >= 1 else 3
    return f"{n_params / 1e6:.1f}", f"{budget:.1e}", f"{hours:.{digits}f}", f"{dollars:,.0f}"
