"""Growing checkpoints of transformers, judged by its own forward pass in float64."""

import json
import re
import resource
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import IDS, SIZES, gradients, load, logits, new_model, plan, save
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from benchmark.base.errors import BenchmarkError
from benchmark.cli.main import main
from benchmark.pretrained.architecture import FOLDER
from benchmark.pretrained.optimizer import numbered_names
from tools.methods_page.checkpoints import PATH, methods, page

EXACT, DIFFERENT = 1e-10, 1e-6
GROUPED_AXES = {
    "n_layer": {"n_layer": 2},
    "d_ff": {"d_ff": 12},
    "groups": {"n_head": 4, "n_kv_head": 2},
    "queries": {"n_head": 4},
    "d_model": {"d_model": 24},
}
DERIVED_AXES = {
    "n_layer": {"n_layer": 2},
    "d_ff": {"d_ff": 12},
    "d_model": {"d_model": 16, "n_head": 4},
}
AXES = {name: DERIVED_AXES if name.startswith("gpt") else GROUPED_AXES for name in SIZES}
"""Of each architecture: what can grow, and from which sizes."""

WRONG = '''
"""Claims to keep the function, and does not."""

from baselines.net2net_corner import Corner
from benchmark.baseline import Baseline


class Liar(Corner):
    preserves_function = True


class Wrong(Baseline):
    def __init__(self) -> None:
        super().__init__()
        self.operators = (Liar(),)
'''


def grow(path: Path, out: Path | None, method: str, *to: str, arguments: Sequence[str] = ()) -> int:
    """Exit code of the command; what begins with dashes is an option."""
    options = [text for text in to if text.startswith("--")]
    sizes = [part for text in to if not text.startswith("--") for part in ("--to", text)]
    where = [] if out is None else ["--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(["grow", str(path), *arguments, "--method", method, *sizes, *where, *options])
    return int(str(ended.value.code or 0))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: save(name, folder / name) for name in SIZES}


@pytest.fixture(scope="module")
def before(checkpoints: dict[str, Path]) -> dict[str, Tensor]:
    return {name: logits(load(path)) for name, path in checkpoints.items()}


def loaded(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """The model of a folder, without what makes `from_pretrained` slow."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).double()
    tensors = load_file(folder / "model.safetensors")
    if "embed_out.weight" in tensors:  # GPT-NeoX has another name for it in files
        tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    result = model.load_state_dict(tensors, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("name", [name for name in SIZES if name != "mistral"])
def test_growth_is_exact_where_that_is_claimed_and_nowhere_else(
    name: str,
    method: str,
    checkpoints: dict[str, Path],
    before: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    n_grown = 0
    for axis, sizes in AXES[name].items():
        for factor in (1.5, 2, 3):
            to = [f"{size}={round(old * factor)}" for size, old in sizes.items()]
            try:
                growth = plan(checkpoints[name], method, *to)
            except BenchmarkError:
                continue
            folder = tmp_path / f"{axis} {factor}"
            folder.mkdir()
            growth.write(folder)
            error = float((logits(loaded(folder)) - before[name]).abs().max())
            assert error < EXACT if growth.is_exact else error > DIFFERENT, (to, error)
            n_grown += 1
    assert n_grown


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_grown_checkpoint_loads_as_transformers_does_it_and_generates(
    name: str, checkpoints: dict[str, Path], before: dict[str, Tensor], tmp_path: Path
) -> None:
    to = [f"{size}={2 * old}" for sizes in AXES[name].values() for size, old in sizes.items()]
    growth = plan(checkpoints[name], "lemon", *to)
    assert growth.is_exact
    growth.write(tmp_path)
    model = load(tmp_path)
    assert float((logits(model) - before[name]).abs().max()) < EXACT
    assert model.generate(IDS, max_new_tokens=3, do_sample=False).shape == (2, 12)


@pytest.mark.slow
def test_narrow_shards_keep_their_type_and_other_files_come_along(tmp_path: Path) -> None:
    small, out = tmp_path / "a b", tmp_path / "c d"
    new_model("llama").bfloat16().save_pretrained(small, max_shard_size="4KB")
    (small / "tokenizer.json").write_text("{}")
    (small / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    grow(small, out, "llama_pro", "n_layer=3")
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    tensors = {n: t for file in set(index.values()) for n, t in load_file(out / file).items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert tensors.keys() == index.keys()
    assert (out / "tokenizer.json").read_text() == "{}"
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n# c d\n")
    assert "float32" in card
    assert "bfloat16" in card
    assert "# The card of a b" in card
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 3
    assert sorted(tmp_path.iterdir()) == [small, out]


@pytest.mark.slow
def test_entries_of_the_config_for_each_block_follow_the_blocks(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    save("qwen2", tmp_path / "s", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    growth = plan(tmp_path / "s", "llama_pro", "n_layer=4")
    assert growth.fields["layer_types"] == [kinds[0], kinds[0], kinds[1], kinds[1]]
    before = logits(load(tmp_path / "s"))
    (out := tmp_path / "out").mkdir()
    growth.write(out)
    assert float((logits(load(out)) - before).abs().max()) < EXACT


@pytest.mark.slow
def test_scaled_rotary_positions_stay_scaled(tmp_path: Path) -> None:
    scaled = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    save("llama", path := tmp_path / "in", rope_parameters=scaled)
    growth = plan(path, "lemon", "d_model=48", "n_layer=3")
    (out := tmp_path / "out").mkdir()
    growth.write(out)
    model, before = load(out), logits(load(path))
    assert model.config.rope_parameters["factor"] == scaled["factor"]
    assert float((logits(model) - before).abs().max()) < EXACT


@pytest.mark.parametrize("method", ["net2net", "zero_width", "lemon", "bert2bert_aki"])
@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_pieces_of_tensors_are_those_of_the_whole(
    name: str,
    method: str,
    checkpoints: dict[str, Path],
    before: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    to = [f"{of}={2 * old}" for axis in ("d_ff", "d_model") for of, old in AXES[name][axis].items()]
    grown: list[dict[str, Tensor]] = []
    for size in (2**30, 256):
        monkeypatch.setattr("benchmark.pretrained.grow.PIECE_BYTES", size)
        (folder := tmp_path / str(size)).mkdir()
        growth = plan(checkpoints[name], method, *to)
        growth.write(folder)
        grown.append(load_file(folder / "model.safetensors"))
    if growth.is_exact:  # what is drawn at random is drawn for each piece
        assert float((logits(loaded(folder)) - before[name]).abs().max()) < EXACT
    else:
        assert all(torch.equal(grown[0][n], grown[1][n]) for n in grown[0] if "norm" in n)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_what_is_only_copied_is_the_same_in_pieces(
    name: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grown: list[dict[str, Tensor]] = []
    for size in (2**30, 256):
        monkeypatch.setattr("benchmark.pretrained.grow.PIECE_BYTES", size)
        (folder := tmp_path / str(size)).mkdir()
        plan(checkpoints[name], "net2net", "d_ff=30", noise=0).write(folder)
        grown.append(load_file(folder / "model.safetensors"))
    assert all(torch.equal(grown[0][name], grown[1][name]) for name in grown[0])


def test_a_claim_that_does_not_hold_is_exit_code_1_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    sys.path.insert(0, str(tmp_path))
    try:
        assert grow(checkpoints["llama"], tmp_path / "out", "wrong:Wrong", "d_ff=24") == 1
    finally:
        sys.path.remove(str(tmp_path))
    assert "the claim does not hold" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"wrong.py", "__pycache__"}


def adamw(model: Any, folder: Path) -> torch.optim.AdamW:  # noqa: ANN401 - of transformers
    """An optimizer with the Trainer's groups, whose averages are of the last gradient alone."""
    by_name = dict(model.named_parameters())
    names = numbered_names(folder)
    assert {name for group in names for name in group} == by_name.keys()
    groups = [{"params": [by_name[name] for name in group]} for group in names]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.0, 0.0))


def save_with_state(name: str, folder: Path) -> None:
    (model := new_model(name)).save_pretrained(folder)
    optimizer = adamw(model, folder)
    gradients(model)
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")


def states(folder: Path) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Of every parameter: its state, as an optimizer loads it, and the loss's gradient."""
    optimizer = adamw(model := load(folder), folder)
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    found = gradients(model)
    return {name: (optimizer.state[p], found[name]) for name, p in model.named_parameters()}


def is_of(gradient: Tensor, state: dict[str, Tensor]) -> bool:
    """Whether a state is that of a parameter which had this gradient in its only step."""
    errors = state["exp_avg"] - gradient, state["exp_avg_sq"] - gradient**2
    return bool(state["step"] == 1) and all(float(error.abs().max()) < EXACT for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gpt_neox"])
def test_the_state_of_adamw_grows_as_gradients_do(name: str, tmp_path: Path) -> None:
    save_with_state(name, tmp_path / "s")
    to = [
        f"{size}={3 * old}"
        for axis in ("d_ff", "d_model")
        for size, old in AXES[name][axis].items()
    ]
    arguments = ["noise=0"]
    code = grow(tmp_path / "s", tmp_path / "o", "net2net", *to, "--optimizer", arguments=arguments)
    assert code == 0
    for of, (state, gradient) in states(tmp_path / "o").items():
        assert is_of(gradient, state), of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_the_state_of_adamw_stays_with_old_blocks_and_is_nothing_in_new_ones(
    name: str, tmp_path: Path
) -> None:
    save_with_state(name, tmp_path / "s")
    code = grow(tmp_path / "s", tmp_path / "o", "llama_pro", "n_layer=4", "--optimizer")
    assert code == 0
    for of, (state, gradient) in states(tmp_path / "o").items():
        if re.search(r"\.[13]\.", of):
            assert not any(tensor.any() for tensor in state.values()), of
        else:
            assert is_of(gradient, state), of


@pytest.mark.slow
def test_copied_blocks_have_the_state_of_those_that_they_copy(tmp_path: Path) -> None:
    save_with_state("llama", tmp_path / "s")
    assert grow(tmp_path / "s", tmp_path / "o", "stacking", "n_layer=4", "--optimizer") == 0
    large, small = states(tmp_path / "o"), states(tmp_path / "s")
    for of, (state, _) in large.items():
        origin = re.sub(r"\.([23])\.", lambda match: f".{int(match[1]) - 2}.", of)
        assert all(torch.equal(state[kind], small[origin][0][kind]) for kind in state), of


def break_shard(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def put_nan(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, path / "model.safetensors")


def add_tensor(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    save_file(tensors | {"model.extra": torch.ones(3)}, path / "model.safetensors")


def drop_tensor(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, path / "model.safetensors")


def narrow_tensor(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, path / "model.safetensors")


def only_a_pickle(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def index_of_nothing(path: Path) -> None:
    weight_map = {"model.norm.weight": "model.safetensors", "model.lost": "model.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def setting(**fields: object) -> Callable[[Path], None]:
    """What changes fields of a config."""

    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | fields))

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (break_shard, "model.safetensors is damaged or cut short"),
    "NaN": (put_nan, "up_proj.weight has entries that are not finite numbers"),
    "unknown tensor": (add_tensor, "unknown tensor model.extra"),
    "missing tensor": (drop_tensor, "model.norm.weight is missing"),
    "eight bits": (narrow_tensor, "up_proj.weight is stored as F8_E4M3; what can be grown is F64"),
    "pickle": (only_a_pickle, "pytorch_model.bin is a pickle"),
    "index": (index_of_nothing, "but not in model.safetensors.index.json"),
    "contradiction": (setting(intermediate_size=16), "gate_proj.weight is [12, 24], but config"),
    "heads": (setting(num_key_value_heads=3), "n_head=4 with n_kv_head=3"),
    "quantised": (setting(quantization_config={"bits": 4}), "quantised weights cannot be grown"),
    "per layer": (setting(no_rope_layers=[1, 0]), "no_rope_layers has an entry for each"),
    "no config": (lambda path: (path / "config.json").unlink(), "config.json is missing"),
    "broken config": (lambda path: (path / "config.json").write_text("{"), "config.json: "),
    "other model": (setting(model_type="mamba"), "model_type 'mamba' of config.json is none of"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "has neither"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_checkpoint_is_one_line_exit_code_2_and_nothing_is_left(
    fault: str, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoints["llama"], path := tmp_path / "in")
    cause, message = FAULTS[fault]
    cause(path)
    assert grow(path, tmp_path / "out", "llama_pro", "n_layer=3", "--no-check") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [*tmp_path.iterdir()] == [path]


MISTAKES: dict[str, tuple[str, list[str], list[str], str]] = {
    "no growth": ("llama_pro", ["n_layer=1"], [], "cannot shrink n_layer from 2 to 1"),
    "unknown size": ("llama_pro", ["depth=4"], [], "--to depth: what grows is one of"),
    "a fraction": ("lemon", ["d_model=36.5"], [], "a whole number or text such as 1.5*d_model"),
    "not whole": ("lemon", ["d_model=1.3*d_model"], [], "not a whole number"),
    "not this one": ("llama_pro", ["d_ff=24"], [], "cannot grow d_ff from 12 to 24"),
    "not tiled": ("hypercloning", ["d_model=36"], [], "must grow to a multiple of 24"),
    "split group": ("lemon", ["n_kv_head=4"], [], "leaves 1 of 2 queries for each key"),
    "uneven": ("lemon", ["n_head=5"], [], "as many queries as the others"),
    "learns": ("ligo", ["n_layer=4"], [], "learns or chooses by training"),
    "own model": ("msg", ["n_layer=4"], [], "an architecture of its own"),
    "nobody": ("lmon", ["n_layer=4"], [], "did you mean"),
    "no state": ("llama_pro", ["n_layer=4"], ["--optimizer"], "optimizer.pt is missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_is_allowed(
    mistake: str, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, to, options, message = MISTAKES[mistake]
    out = tmp_path / "out"
    assert grow(checkpoints["llama"], out, method, *to, "--no-check", *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_what_is_there_is_never_overwritten(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grow(checkpoints["llama"], tmp_path, "llama_pro", "n_layer=3") == 2
    assert "is there already" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code = grow(checkpoints["llama"], tmp_path / "out", "llama_pro", "n_layer=6", "--no-check")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_dry_run_writes_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grow(checkpoints["gpt2"], None, "zero_width", "d_model=32", "n_head=8", "--dry-run") == 0
    assert "will change" in capsys.readouterr().out


def test_a_state_that_could_run_code_is_not_read(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoints["llama"], path := tmp_path / "in")
    torch.save({"state": Path("x"), "param_groups": []}, path / "optimizer.pt")
    code = grow(path, tmp_path / "out", "llama_pro", "n_layer=3", "--no-check", "--optimizer")
    assert code == 2
    assert "holds more than tensors" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_of_the_document_is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == page()


@pytest.mark.slow
def test_the_commands_of_the_document_work(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in checkpoints.items():
        shutil.copytree(path, tmp_path / name)
    shutil.copytree(checkpoints["gpt_neox"], tmp_path / "pythia")
    monkeypatch.chdir(tmp_path)
    text = PATH.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^growbench (grow (?!PATH).+)$", text, re.MULTILINE)
    assert len(commands) > 3
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command))
        assert not ended.value.code, command
    for folder in tmp_path.glob("*-*"):
        assert load(folder).generate(IDS, max_new_tokens=2, do_sample=False).shape == (2, 11)


def test_without_transformers_only_the_proof_is_refused(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert grow(checkpoints["llama"], tmp_path / "out", "llama_pro", "n_layer=3") == 2
    assert "pip install 'growbench[transformers]'" in capsys.readouterr().err
    assert grow(checkpoints["llama"], tmp_path / "out", "llama_pro", "n_layer=3", "--no-check") == 0


def test_a_file_of_ones_own_describes_another_architecture(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoints["llama"], path := tmp_path / "in")
    setting(model_type="mine")(path)
    file, text = tmp_path / "mine.yaml", (FOLDER / "llama.yaml").read_text()
    file.write_text(text.replace("[llama, mistral]", "[mine]"))
    options = ("--no-check", f"--architecture={file}")
    assert grow(path, tmp_path / "out", "lemon", "d_model=36", *options) == 0
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    plan(checkpoints["llama"], "lemon", "d_model=36").write(theirs)
    a, b = (load_file(folder / "model.safetensors") for folder in (theirs, tmp_path / "out"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    file.write_text(text.replace("out: d_ff,", "out: d_fff,").replace("[llama", "[mine, llama"))
    assert grow(path, tmp_path / "again", "lemon", "d_model=36", *options) == 2
    assert "unknown axis 'd_fff'; allowed: d_model," in capsys.readouterr().err


def test_names_without_their_prefix_and_buffers_are_kept_as_the_first_gpt2_has_them(
    checkpoints: dict[str, Path], before: dict[str, Tensor], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["gpt2"], path := tmp_path / "in")
    tensors = load_file(path / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        short[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 4, 4).tril()
        short[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(short, path / "model.safetensors")
    (out := tmp_path / "out").mkdir()
    plan(path, "identity_depth", "n_layer=3").write(out)
    grown = load_file(out / "model.safetensors")
    assert {name.split(".")[1] for name in grown if name.startswith("h.")} == {"0", "1", "2"}
    assert torch.equal(grown["h.2.attn.bias"], short["h.1.attn.bias"])
    assert float((logits(load(out)) - before["gpt2"]).abs().max()) < EXACT
