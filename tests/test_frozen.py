"""What a method freezes rests, costs what torch counts, and is charged that in a run."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY, every_variant, generator, gradients, loss, text, trained_like
from tiny_suite import finish, run_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from baselines.bert2bert import Bert2Bert
from baselines.llama_pro import LlamaPro
from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.masking import MaskedTransformer
from baselines.parts.token_parameters import TokenFormer
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth.operator import Moments
from benchmark.model.cost import forward_flops_per_token, training_flops_per_token
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import find
from benchmark.records.events import read_events
from benchmark.stage.checkpoint import load_state
from benchmark.training.optim import OptimizerConfig, build_optimizer, moments_of

DEEP = replace(TINY, n_layer=3)
FROZEN: dict[str, Callable[[str], bool]] = {
    "nothing": lambda name: False,
    "all but the middle block": lambda name: not name.startswith("blocks.1."),
    "all but the top block": lambda name: not name.startswith("blocks.2."),
    "all but the head": lambda name: not name.startswith(("norm_head", "head")),
    "all but the last gain": lambda name: name != "norm_head.weight",
    "the middle block": lambda name: name.startswith("blocks.1."),
    "the embeddings": lambda name: name.startswith(("embed", "positions")),
    "all but the embeddings": lambda name: not name.startswith("embed"),
    "all but the gains": lambda name: "norm" not in name,
    "all but the lowest residual write": lambda name: not name.startswith("blocks.0.o."),
}
FROZEN_LLAMA_PRO = """
name: llama_pro_frozen
target: baselines.llama_pro:LlamaPro
args: {train: new}
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.growth.schedule:AtFractions", args: {at: [0.5]}}
"""
each_choice = pytest.mark.parametrize("choice", FROZEN)


def frozen_of(model: Transformer, choice: str) -> list[str]:
    return [name for name, _ in model.named_parameters() if FROZEN[choice](name)]


def counted(model: Transformer, frozen: Collection[str]) -> float:
    """FLOPs per token of a training step by torch's counter; it knows no causal mask."""
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    window = text(model.config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(model, window).backward()
    return counter.get_total_flops() / window[:, :-1].numel()


@every_variant
@each_choice
def test_the_formula_is_what_torch_counts_whatever_rests(config: ModelConfig, choice: str) -> None:
    model = trained_like(replace(config, n_layer=3))
    frozen = frozen_of(model, choice)
    formula = training_flops_per_token(Transformer.shell(model.config), frozen, causal=False)
    assert counted(model, frozen) == formula


@each_choice
@pytest.mark.parametrize("cls", [TokenFormer, LowRankTransformer, MaskedTransformer])
def test_so_it_is_for_other_architectures(cls: type[Transformer], choice: str) -> None:
    model = trained_like(replace(DEEP, own=(("n_token", 5), ("rank", 2))), cls=cls)
    frozen = frozen_of(model, choice)
    formula = training_flops_per_token(cls.shell(model.config), frozen, causal=False)
    assert counted(model, frozen) == formula


def test_three_forward_passes_are_not_what_a_half_frozen_model_takes() -> None:
    model = trained_like(DEEP)
    frozen = frozen_of(model, "all but the top block")
    shell = Transformer.shell(DEEP)
    forward = forward_flops_per_token(shell, causal=False)
    assert forward < counted(model, frozen) < 2 * forward < 3 * forward


def test_frozen_blocks_agree_with_a_pencil() -> None:
    """A block has 512 multiply-accumulates in maps and 40 in attention, the head 80.

    Only the top block learns: 552 once, 552 three times, 80 twice. Only the bottom one: 552 three
    times; above it maps twice, attention, which has no weights, three times.
    """
    shell = Transformer.shell(
        ModelConfig(d_model=8, n_layer=2, n_head=2, d_head=4, d_ff=16, vocab_size=10, seq_len=4)
    )
    names = [name for name, _ in shell.named_parameters()]
    for block, macs in {"blocks.1.": 552 + 3 * 552 + 2 * 80,
                        "blocks.0.": 3 * 552 + 2 * 512 + 3 * 40 + 2 * 80}.items():  # fmt: skip
        frozen = [name for name in names if not name.startswith(block)]
        assert training_flops_per_token(shell, frozen) == 2 * macs
    assert training_flops_per_token(shell) == 7104


def test_what_rests_is_not_updated_nor_decayed_and_its_moments_wait() -> None:
    model = trained_like(DEEP)
    frozen = set(frozen_of(model, "all but the middle block"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    warm = {name: torch.full_like(p, 0.5) for name, p in model.named_parameters()}
    first, second = ({name: moment.clone() for name, moment in warm.items()} for _ in range(2))
    given = Moments.adam(first, second, dict.fromkeys(warm, 7.0))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5), given)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    loss(model, text(DEEP)).backward()
    optimizer.step()
    after = moments_of(model, optimizer)
    for name, parameter in model.named_parameters():
        rests = name in frozen
        assert (parameter.grad is None) is rests
        assert torch.equal(parameter.detach(), before[name]) is rests
        assert torch.equal(after.exp_avg[name], warm[name]) is rests
        assert after.step[name] == (7.0 if rests else 8.0)


def test_without_freezing_everything_is_updated() -> None:
    model = trained_like(DEEP)
    assert all(bool(gradient.any()) for gradient in gradients(model).values())
    optimizer = build_optimizer(model, OptimizerConfig(), Moments.zeros(model))
    n_trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert n_trained == len(list(model.parameters()))


def resting_blocks(method: LlamaPro | Bert2Bert, n_small: int, n_large: int) -> set[int]:
    small, large = replace(TINY, n_layer=n_small), replace(TINY, n_layer=n_large)
    frozen = method.frozen(small, large)
    outside = {name for name in dict(Transformer.shell(large).named_parameters())
               if not name.startswith("blocks.")}  # fmt: skip
    assert outside <= set(frozen) or not frozen
    return {int(name.split(".")[1]) for name in frozen if name.startswith("blocks.")}


def test_llama_pro_trains_the_copies_alone_if_asked() -> None:
    assert resting_blocks(LlamaPro(train="new"), 4, 6) == {0, 1, 3, 4}
    assert resting_blocks(LlamaPro(train="new"), 1, 2) == {0}
    assert resting_blocks(LlamaPro(), 4, 6) == set()
    with pytest.raises(ConfigError, match=r"train must be one of .*, got 'old'"):
        LlamaPro(train="old")


def test_bert2bert_trains_the_new_top_first_and_then_all() -> None:
    assert resting_blocks(Bert2Bert(two_stage=True), 2, 4) == {0, 1}
    assert resting_blocks(Bert2Bert(two_stage=True), 4, 4) == set()
    assert resting_blocks(Bert2Bert(), 2, 4) == set()


class _TrainsNothing(LlamaPro):
    def trains(self, name: str, small: ModelConfig, large: ModelConfig) -> bool:
        return False


def test_a_method_that_freezes_everything_is_refused() -> None:
    with pytest.raises(GrowthError, match="freezes every parameter; one must learn"):
        _TrainsNothing().frozen(TINY, DEEP)


def test_a_run_rests_what_is_old_and_is_charged_what_it_computes(tmp_path: Path) -> None:
    run, context = run_of(tmp_path, FROZEN_LLAMA_PRO)
    done = finish(run, context)
    grown = next(i for i, (spec, _) in enumerate(done) if spec.grows_from)
    folder = context.cache / "stages"
    first, last = (
        load_state(folder / done[i][0].id / "checkpoint.safetensors", Transformer, "cpu")
        for i in (grown - 1, len(done) - 1)
    )
    small, large = first.model.state_dict(), last.model.state_dict()
    frozen = done[-1][0].frozen
    assert set(frozen) == {name for name in large if "blocks.1." not in name and "eps" not in name}
    assert all(torch.equal(small[name], large[name]) for name in frozen)
    assert not torch.equal(large["blocks.1.o.weight"], torch.zeros_like(large["blocks.1.o.weight"]))
    for spec, _ in done[grown:]:
        events = read_events(folder / spec.id / "events.jsonl")
        charge = next(e for e in events if e["kind"] == "charge" and e["what"] == "train")
        per_token = [
            training_flops_per_token(Transformer.shell(last.model.config), frozen, causal=causal)
            for causal in (True, False)
        ]
        assert charge["flops"] == charge["tokens"] * per_token[0]
        assert charge["flops_unmasked"] == charge["tokens"] * per_token[1]
    assert run.budget - done[-1][0].step_flops < done[-1][1].end.flops <= run.budget


def test_two_stages_are_a_stage_of_the_top_and_a_stage_of_all(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, find("method", "bert2bert_two_stage").read_text())
    stages = {spec.n_grown: spec for spec, _ in run.predicted()}
    assert [bool(stages[n].frozen) for n in (0, 1, 2)] == [False, True, False]
    assert stages[1].model == stages[2].model
    assert stages[1].step_flops < stages[2].step_flops


@pytest.mark.parametrize("frozen", ["read", "write", "both"])
def test_the_fast_product_of_groups_takes_only_the_gradients_that_are_needed(frozen: str) -> None:
    """In float32 on a CPU, where the kernel is the harness's own."""
    model = TokenFormer(replace(DEEP, own=(("n_token", 5),)), generator=generator(0))
    pairs = [name for name, _ in model.named_parameters() if "qkv" in name]
    for name in pairs:
        model.get_parameter(name).requires_grad_(not name.endswith(frozen) and frozen != "both")
    loss(model, text(model.config)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
