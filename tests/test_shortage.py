"""Where memory runs out, batches are taken in smaller pieces, and nothing else changes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, trained_like
from tiny_suite import Interrupted, finish, killed_after, run_of
from torch import Tensor
from typing_extensions import override

from baselines.ligo import LiGO
from benchmark.data.stream import ByteStream
from benchmark.growth.grow import grow
from benchmark.growth.operator import Moments, Resources, StatePolicy
from benchmark.model.transformer import Transformer
from benchmark.records.events import Event, read_events
from benchmark.stage.batches import Batches
from benchmark.stage.checkpoint import StageStore
from benchmark.training.baseline import Fit, Plain
from benchmark.training.evaluate import score
from benchmark.training.loop import make_fabric, train
from benchmark.training.optim import OptimizerConfig, RateCurve
from benchmark.training.shortage import first_that_fits, halvings, is_out_of_memory, micro_batches

METHOD = "name: {0}\ntarget: 'greedy_methods:{0}'\nrole: control\n"


def trained(folder: Path, method: str) -> tuple[list[Event], dict[str, Tensor]]:
    """Events and last checkpoint of a whole run."""
    run, context = run_of(folder, METHOD.format(method))
    store = StageStore(context.cache)
    folders = [store.folder(spec.id) for spec, _ in finish(run, context)]
    events = [event for folder in folders for event in read_events(folder / "events.jsonl")]
    return events, load_file(folders[-1] / "checkpoint.safetensors")


def losses(events: list[Event]) -> list[float]:
    return [event["loss"] for event in events if event["kind"] == "train"]


def timeless(event: Event) -> Event:
    return {key: value for key, value in event.items()
            if "seconds" not in key and key not in ("stage_id", "made_with")}  # fmt: skip


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], dict[str, Any]]:
    """A run that is short of memory, whole."""
    return trained(tmp_path_factory.mktemp("greedy"), "Greedy")


@pytest.mark.parametrize(
    ("n_windows", "least", "expected"),
    [(8, 1, [1, 2, 4, 8]), (12, 1, [1, 2, 4, 12]), (7, 1, [1, 7]), (8, 3, [4, 8]), (1, 1, [1])],
)
def test_micro_batches_are_equal_and_at_most_half_as_large_each_time(
    n_windows: int, least: int, expected: list[int]
) -> None:
    assert list(micro_batches(n_windows, least)) == expected


def test_a_batch_to_be_scored_is_halved() -> None:
    assert list(halvings(9)) == [9, 4, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
     RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
     RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
     RuntimeError("CUDA error: out of memory")],
)  # fmt: skip
def test_shortage_is_told_from_other_errors(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))

    def attempt(size: int) -> int:
        if size > 2:
            raise error
        return size

    assert first_that_fits([8, 4, 2, 1], attempt) == 2
    with pytest.raises(MemoryError, match="even one window at a time is too much") as told:
        first_that_fits([8, 4], attempt)
    assert "\n" not in str(told.value)


def test_another_error_is_not_tried_again() -> None:
    def attempt(size: int) -> int:
        raise ValueError(size)

    with pytest.raises(ValueError, match="8"):
        first_that_fits([8, 4], attempt)


@pytest.mark.slow
def test_a_run_that_is_short_of_memory_learns_the_same(
    tmp_path: Path, greedy: tuple[list[Event], dict[str, Tensor]]
) -> None:
    (events, _), (plain, _) = greedy, trained(tmp_path, "Modest")
    short = [event for event in events if event["kind"] == "micro_batch"]
    stages = [event["step"] for event in events if event["kind"] == "stage"]
    training = [e for e in short if e["what"] == "training"]
    assert [(e["n_micro"], e["n_windows"], e["step"]) for e in training] == [
        (4, 1, step) for step in stages
    ]
    assert [e["n_windows"] for e in short if e["what"] == "evaluation"] == [2] * len(stages)
    rest = [event for event in events if event["kind"] not in ("micro_batch", "provenance")]
    rounded = {"loss", "bpb", "nats", "block_nats"}
    for one, other in zip([e for e in plain if e["kind"] != "provenance"], rest, strict=True):
        for key in one.keys() & rounded:
            assert other[key] == pytest.approx(one[key], rel=1e-5)
        exact = timeless(one).keys() - rounded
        assert {key: other[key] for key in exact} == {key: one[key] for key in exact}
    assert losses(events) != losses(plain)  # they were really cut


@pytest.mark.slow
def test_a_run_without_memory_for_one_window_ends_and_says_so(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, METHOD.format("Insatiable"))
    with pytest.raises(MemoryError, match=r"even one window .*: OutOfMemoryError: CUDA out of mem"):
        finish(run, context)


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_with_the_micro_batches_it_had(
    tmp_path: Path, greedy: tuple[list[Event], dict[str, Tensor]]
) -> None:
    """What it learned about memory is in its log; the resumed run fails at no step again."""
    run, context = run_of(tmp_path, METHOD.format("Greedy"))
    with pytest.raises(Interrupted):
        finish(run, replace(context, checkpoint_seconds=0.0, on_tick=killed_after(6)))
    assert list(context.cache.glob("stages/*/progress.safetensors"))
    whole, end = greedy
    resumed, resumed_end = trained(tmp_path, "Greedy")
    assert [timeless(event) for event in resumed] == [timeless(event) for event in whole]
    assert all(torch.equal(resumed_end[name], tensor) for name, tensor in end.items())


class _Fewer(Batches):
    """Batches without the last micro-batch of each."""

    @override
    def __iter__(self) -> Iterator[Tensor]:
        for batch in super().__iter__():
            yield batch[:-1]


def weights_after(n_micro: int, *, leaves_out: bool = False) -> dict[str, Tensor]:
    """Weights of a float64 model after some steps."""
    model = trained_like(TINY)
    text = torch.randint(TINY.vocab_size, (2000,), generator=torch.Generator().manual_seed(1))
    stream = ByteStream(text=text.byte(), seq_len=TINY.seq_len, batch_size=12, seed=0)
    baseline = Plain()
    rate = RateCurve(peak=1e-2, warmup_flops=1.0, decay=None)
    baseline.begin(
        Fit(
            model=model, moments=Moments.zeros(model), is_new={}, optimizer=OptimizerConfig(),
            rate=rate, rewarm=None, budget_flops=1e6, grown_at=0.0, start_flops=1.0, n_done=0,
            step_flops=1.0,
        )
    )  # fmt: skip
    batches = (_Fewer if leaves_out else Batches)(stream, 5, n_micro)
    train(baseline, batches, make_fabric("cpu", "64-true"))
    assert baseline.n_done == 5
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_gradients_of_micro_batches_add_up_to_that_of_the_batch() -> None:
    whole = weights_after(1)
    for n_micro in (2, 3, 12):
        for name, tensor in weights_after(n_micro).items():
            torch.testing.assert_close(tensor, whole[name], rtol=1e-6, atol=1e-9)
    broken = weights_after(2, leaves_out=True)
    assert not torch.allclose(broken["embed.weight"], whole["embed.weight"], rtol=1e-6, atol=1e-9)


def test_a_map_learns_the_same_from_micro_batches_at_the_same_charge() -> None:
    small, target = trained_like(TINY), TINY.resized({"n_layer": 4, "d_ff": 20})
    ids = torch.randint(TINY.vocab_size, (12, TINY.seq_len + 1))
    ends = []
    for n_micro in (1, 4):
        resources = Resources(
            torch.Generator().manual_seed(3), iter([ids] * 5), Transformer, n_micro
        )
        operators = LiGO(n_steps=5).operators
        ends.append(
            grow(small, Moments.zeros(small), target, operators, StatePolicy.RESET, resources)
        )
    assert ends[0].flops == ends[1].flops > 0
    assert ends[0].flops_masked == ends[1].flops_masked
    for name, tensor in ends[0].model.state_dict().items():
        found = ends[1].model.state_dict()[name]
        torch.testing.assert_close(found, tensor, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_score_does_not_depend_on_what_fits() -> None:
    model, text = trained_like(TINY), torch.arange(13).repeat(20).byte()
    whole = score(model, text, 16)
    model.train()
    forward, asked = model.forward, list[int]()

    def narrow(ids_BT: Tensor) -> Tensor:
        asked.append(len(ids_BT))
        if len(ids_BT) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(ids_BT)

    model.forward = narrow  # type: ignore[method-assign]
    found = score(model, text, 16)
    assert (whole.batch_size, found.batch_size, asked[:3]) == (16, 4, [16, 8, 4])
    assert torch.allclose(found.nats, whole.nats, rtol=1e-12)
    assert model.training
