"""The model computes what its formulas say, and names the axes of everything it holds."""

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from tiny import TINY, every_variant, gap, generator, gradients, logits, text, trained_like
from torch import Tensor, nn
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.model.kernels import rotate
from benchmark.model.transformer import Block, Kind, ModelConfig, Norm, Transformer, rotation


class PeekingBlock(Block):
    """Broken on purpose: attention without the causal mask."""

    @override
    def attend(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        B, T, _ = x_BTD.shape
        qkv_BT3HK = self.qkv(x_BTD).view(B, T, 3, self.n_head, -1)
        q_BHTK, k_BHTK, v_BHTK = (x.transpose(1, 2) for x in qkv_BT3HK.unbind(2))
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK)
        return y_BHTK.transpose(1, 2).reshape(B, T, -1)


class Peeking(Transformer):
    """A model that sees the future."""

    @override
    def block(self, config: ModelConfig) -> nn.Module:
        return PeekingBlock(self, config)


def reach(model: Transformer, position: int) -> set[int]:
    """Positions whose logits change when the byte at `position` does."""
    ids = text(model.config)[:1, :-1]
    other = ids.clone()
    other[0, position] = (ids[0, position] + 1) % model.config.vocab_size
    with torch.no_grad():
        changed = (model(ids) != model(other)).any(dim=-1)[0]
    return set(changed.nonzero()[:, 0].tolist())


@every_variant
def test_a_byte_changes_its_own_logits_and_later_ones_but_none_before(config: ModelConfig) -> None:
    model = trained_like(config)
    for position in range(config.seq_len):
        assert reach(model, position) == set(range(position, config.seq_len))


def test_a_model_that_looks_ahead_is_noticed() -> None:
    assert reach(trained_like(TINY, cls=Peeking), 3) == set(range(TINY.seq_len))


def rotation_matrix(position: int, size: int) -> Tensor:
    """R of one position: coordinates 2 i and 2 i + 1 turn by position / 10000^(2 i / size)."""
    turn = torch.eye(size, dtype=torch.float64)
    for i in range(size // 2):
        a, b = 2 * i, 2 * i + 1
        angle = position * 10_000.0 ** (-2 * i / size)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
    return turn


def naive_norm(x: Tensor, gain: Tensor, config: ModelConfig) -> Tensor:
    if config.norm == "layernorm":
        x = x - x.sum() / len(x)
    return gain * x / (x.pow(2).sum() / len(x) + config.norm_eps).sqrt()


def naive_qk_norm(x: Tensor, w: dict[str, Tensor], which: int, config: ModelConfig) -> Tensor:
    """A query (0) or key (1) of one head, normalised if the config says so."""
    if not config.qk_norm:
        return x
    return w["norm_qk"][which] * x / (x.square().mean() + config.norm_eps).sqrt()


def naive_attention(w: dict[str, Tensor], x: list[Tensor], config: ModelConfig) -> list[Tensor]:
    """Attention of one sequence, one scalar product at a time."""
    H, K, Q = config.n_head, config.d_head, config.n_query
    *q_ws, k_w, v_w = w["qkv"].view(Q + 2, H, K, config.d_model)
    turns = [rotation_matrix(t if config.positions == "rotary" else 0, K) for t in range(len(x))]
    written = []
    for t in range(len(x)):
        heads = []
        for q_w, h in ((q_w, h) for q_w in q_ws for h in range(H)):
            q = turns[t] @ naive_qk_norm(q_w[h] @ x[t], w, 0, config)
            keys = [turns[s] @ naive_qk_norm(k_w[h] @ x[s], w, 1, config) for s in range(t + 1)]
            scores = [q @ key / math.sqrt(K) for key in keys]
            exps = [score.exp() for score in scores]
            values = [e * (v_w[h] @ x[s]) for s, e in enumerate(exps)]
            heads.append(torch.stack(values).sum(0) / torch.stack(exps).sum())
        written.append(w["o"] @ torch.cat(heads))
    return written


def naive_mlp(w: dict[str, Tensor], x: Tensor, config: ModelConfig) -> Tensor:
    up = w["up"] @ x
    if config.activation == "gelu":
        return w["down"] @ (up * 0.5 * (1 + torch.erf(up / math.sqrt(2))))
    gate, value = up[: config.d_ff], up[config.d_ff :]
    return w["down"] @ (gate / (1 + (-gate).exp()) * value)


def naive_logits(model: Transformer, ids: list[int]) -> Tensor:
    """Logits of one sequence, written from the papers: no batches, no fused kernels."""
    config, state = model.config, model.state_dict()
    x = [state["embed.weight"][i] for i in ids]
    if config.positions == "learned":
        x = [row + state["positions.weight"][t] for t, row in enumerate(x)]
    for layer in range(config.n_layer):
        parts = ("norm_attn", "qkv", *["norm_qk"] * config.qk_norm, "o", "norm_mlp", "up", "down")
        w = {part: state[f"blocks.{layer}.{part}.weight"] for part in parts}
        read = [naive_norm(row, w["norm_attn"], config) for row in x]
        written = naive_attention(w, read, config)
        x = [row + delta for row, delta in zip(x, written, strict=True)]
        x = [row + naive_mlp(w, naive_norm(row, w["norm_mlp"], config), config) for row in x]
    head = state["embed.weight" if config.tied else "head.weight"]
    return torch.stack([head @ naive_norm(row, state["norm_head.weight"], config) for row in x])


@every_variant
def test_agrees_with_a_naive_loop(config: ModelConfig) -> None:
    model, ids = trained_like(config), text(config, n_windows=2)[:, :-1]
    expected = torch.stack([naive_logits(model, row) for row in ids.tolist()])
    with torch.no_grad():
        assert gap(model(ids), expected) < 1e-12


@every_variant
def test_in_float32_computes_and_learns_the_same_up_to_rounding(config: ModelConfig) -> None:
    """Training takes other kernels than the float64 of these tests."""
    model = trained_like(config)
    single = trained_like(config).float()
    torch.testing.assert_close(logits(single).double(), logits(model), rtol=0, atol=2e-4)
    expected = gradients(model)
    for name, gradient in gradients(single).items():
        assert gap(gradient.double(), expected[name]) < 2e-4


def test_the_naive_loop_notices_a_missing_mask() -> None:
    model, ids = trained_like(TINY, cls=Peeking), text(TINY, n_windows=1)[:, :-1]
    with torch.no_grad():
        assert gap(model(ids)[0], naive_logits(model, ids[0].tolist())) > 1e-2


@every_variant
def test_reads_fewer_bytes_than_its_length(config: ModelConfig) -> None:
    model, ids = trained_like(config), text(config)[:, :-1]
    with torch.no_grad():
        torch.testing.assert_close(model(ids[:, :3]), model(ids)[:, :3], rtol=0, atol=1e-12)


def shifted_by(model: Transformer, n: int) -> Tensor:
    """What attention of the first block writes when all positions move by `n`."""
    block, T = model.blocks[0], 4
    assert isinstance(block, Block)
    x_BTD = torch.randn(2, T, model.config.d_model, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        return block.attend(x_BTD, rotation(model.config)[n : n + T])


def test_rotary_attention_depends_on_distance_alone() -> None:
    config = replace(TINY, seq_len=64)
    model = trained_like(config)
    for n in (1, 5, 60):
        assert gap(shifted_by(model, n), shifted_by(model, 0)) < 1e-12
    at_zero = rotation(config)[:1].expand(64, -1, -1)  # broken: nobody is turned
    block = model.blocks[0]
    assert isinstance(block, Block)
    x = torch.randn(1, 64, config.d_model, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        assert gap(block.attend(x, at_zero), block.attend(x, rotation(config))) > 1e-3


def test_rotary_scores_of_equal_vectors_are_constant_along_diagonals() -> None:
    K, T = 4, 9
    config = replace(TINY, seq_len=T, d_head=K)
    q, k = torch.randn(2, K, generator=generator(), dtype=torch.float64)
    turned = [rotate(v.expand(1, T, 1, K), rotation(config))[0, :, 0] for v in (q, k)]
    scores = turned[0] @ turned[1].T
    assert gap(scores[1:, 1:], scores[:-1, :-1]) < 1e-12
    expected = torch.stack([q @ rotation_matrix(t, K).T @ k for t in range(T)])
    assert gap(scores[:, 0], expected) < 1e-12  # q at t, k at 0


def test_only_learned_positions_tell_the_places_of_a_constant_text_apart() -> None:
    ids = torch.zeros(1, TINY.seq_len, dtype=torch.int64)
    with torch.no_grad():
        rotary = trained_like(TINY)(ids)[0]
        learned = trained_like(replace(TINY, positions="learned"))(ids)[0]
    assert gap(rotary[1:], rotary[:1]) < 1e-12
    assert gap(learned[1:], learned[:1]) > 1e-2


@every_variant
def test_every_tensor_has_axes_that_fit_it(config: ModelConfig) -> None:
    model = Transformer(config, generator=generator())
    state, axes = model.state_dict(), model.axes()
    assert axes.keys() == state.keys()
    for name, tensor in state.items():
        assert math.prod(axes[name].shape(config)) == tensor.numel()
        if axes[name].kind is Kind.MAP:
            n_out = math.prod(config.size(axis) for axis in axes[name].out)
            assert tensor.shape == (n_out, tensor.numel() // n_out)
    assert {axes[name].kind for name, _ in model.named_buffers() if name in axes} == {Kind.CONSTANT}


def test_axes_of_the_wrong_order_are_noticed() -> None:
    model = Transformer(TINY)
    qkv = model.axes()["blocks.0.qkv.weight"]
    assert qkv.names == ("qkv", "n_head", "d_head", "d_model")
    swapped = replace(qkv, out=qkv.into, into=qkv.out)
    n_out = math.prod(TINY.size(axis) for axis in swapped.out)
    assert n_out != model.get_parameter("blocks.0.qkv.weight").shape[0]


@every_variant
def test_the_gain_before_a_tied_head_is_contracted_and_every_other_one_produced(
    config: ModelConfig,
) -> None:
    gains = {n: a for n, a in Transformer.shell(config).axes().items() if a.kind is Kind.GAIN}
    gains = {name: axes for name, axes in gains.items() if "norm_qk" not in name}
    assert len(gains) == 2 * config.n_layer + 1
    into = {name for name, axes in gains.items() if axes.into}
    assert into == ({"norm_head.weight"} if config.tied else set())


def test_weights_start_with_the_stated_scales() -> None:
    config = ModelConfig(d_model=96, n_layer=3, n_head=6, d_head=16, d_ff=160, positions="learned")
    stds = {
        "embed": 0.2, "positions": 0.2, "qkv": 96**-0.5, "up": 96**-0.5, "head": 96**-0.5,
        "o": (6 * 96) ** -0.5, "down": (6 * 160) ** -0.5,
    }  # fmt: skip
    model = Transformer(config, generator=generator())
    for name, weight in model.named_parameters():
        part = name.split(".")[-2]
        if part.startswith("norm"):
            assert bool((weight == 1).all())
            continue
        z = weight.detach().double() / stds[part]
        error = 1 / math.sqrt(z.numel())
        assert abs(float(z.mean())) < 5 * error
        assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2) * error
        assert float(z.pow(4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96) * error)  # normal


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b = (Transformer(TINY, generator=generator(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    other = Transformer(TINY, generator=generator(6))
    assert not torch.equal(a.embed.weight, other.embed.weight)


def test_a_tied_head_is_the_embedding() -> None:
    tied, untied = (trained_like(replace(TINY, tied=tied)) for tied in (True, False))
    assert "head.weight" not in tied.state_dict()
    counts = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert counts[1] - counts[0] == TINY.vocab_size * TINY.d_model
    ids = text(TINY)[:, :-1]
    unseen = next(i for i in range(TINY.vocab_size) if not bool((ids == i).any()))
    before = logits(tied)
    with torch.no_grad():
        tied.embed.weight[unseen] += 1.0  # no input reads this row: only the head can
    changed = (logits(tied) != before).flatten(0, 1).any(0)
    assert changed.nonzero().tolist() == [[unseen]]
    assert bool(gradients(tied)["embed.weight"][unseen].any())
    assert not bool(gradients(untied)["embed.weight"][unseen].any())


EPS = 0.00123456789  # not a float32, much less a bfloat16


def test_the_epsilon_survives_saving_and_casting() -> None:
    config = replace(TINY, norm_eps=EPS)
    model = Transformer(config)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model = model.to(dtype)
        assert model.state_dict()["norm_head.eps"].item() == EPS
        other = Transformer(TINY).to(dtype)
        other.load_state_dict(model.state_dict())
        norms = [part for _, part in other.parts() if isinstance(part, Norm)]
        assert len(norms) == 5
        assert {norm.epsilon for norm in norms} == {EPS}
        assert {float(norm.get_buffer("eps")) for norm in norms} == {EPS}


def test_the_epsilon_that_is_loaded_is_the_one_that_is_used() -> None:
    coarse, fine = (trained_like(replace(TINY, norm_eps=eps)) for eps in (1e-1, 1e-5))
    assert gap(logits(coarse), logits(fine)) > 1e-3
    fine.load_state_dict(coarse.state_dict())
    assert torch.equal(logits(coarse), logits(fine))


@every_variant
def test_a_shell_takes_no_memory_and_has_the_same_axes_and_cost(config: ModelConfig) -> None:
    shell, model = Transformer.shell(config), Transformer(config)
    assert shell is Transformer.shell(replace(config))
    assert all(tensor.is_meta for tensor in shell.state_dict().values())
    assert shell.axes() == model.axes()
    assert (shell.linear_macs, shell.attention_macs) == (model.linear_macs, model.attention_macs)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (shell, model)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 0}, "d_model must be at least 1"),
        ({"norm": "batchnorm"}, "norm must be one of"),
        ({"positions": "alibi"}, "positions must be one of"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"d_head": 3}, "d_head must be even"),
    ],
)
def test_refuses_an_impossible_config(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)  # type: ignore[arg-type]


def test_an_odd_head_is_possible_without_rotation() -> None:
    assert logits(trained_like(replace(TINY, d_head=3, positions="learned"))).isfinite().all()


def test_a_size_may_be_a_multiple_of_another() -> None:
    sizes: dict[str, int | str] = {
        "n_token": "0.5*d_model",
        "rank": "d_model",
        "d_ff": "4 * d_model",
        "n_head": 5,
    }
    config = TINY.resized(sizes)
    assert (config.n_token, config.rank, config.d_ff, config.n_head) == (3, 6, 24, 5)
    assert config.sizes().keys() - TINY.size_names() == {"n_token", "rank"}
    assert copy.deepcopy(config) == config == ModelConfig(**asdict(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.7*d_model", "n_token=0.7\\*d_model is 4.2, not a whole number"),
        ("0.5*n_token", "n_token must be an integer or a multiple of one of"),
        ("d_model/2", "such as '0.75\\*d_model', got 'd_model/2'"),
        ("0*d_model", "n_token must be at least 1, got 0"),
    ],
)
def test_refuses_what_is_no_multiple_of_a_size(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TINY.resized({"n_token": text})


def test_sizes_are_the_integers_and_nothing_else() -> None:
    assert TINY.sizes() == {
        "d_model": 6, "n_layer": 2, "n_head": 3, "d_head": 4, "n_query": 1, "d_ff": 10,
        "vocab_size": 13, "seq_len": 7,
    }  # fmt: skip
    assert "rank" in TINY.resized({"rank": 3}).sizes()
