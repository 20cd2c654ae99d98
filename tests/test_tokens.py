"""A corpus of tokens is its text: decoded byte for byte, scored per byte, refused if in doubt."""

import base64
import json
import math
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_suite
import torch
import yaml
from tiny import TINY, gap, generator, trained_like
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmark.audit import audit
from benchmark.base.errors import DataError
from benchmark.cli.main import main
from benchmark.data.corpora import Corpus, CorpusConfig, Splits, load
from benchmark.data.sources import packaged
from benchmark.data.synthetic import MarkovSource
from benchmark.data.tokenize import tokenize
from benchmark.data.tokens import BYTES, Vocabulary, read_vocabulary
from benchmark.data.tripwires import WINDOW, tripwires
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.config import load_corpus
from benchmark.records.folder import load_suite
from benchmark.training.baseline import mean_nats
from benchmark.training.evaluate import score

SPLITS = Splits(val_start=0.8, test_start=0.9)
WORDS = "Grüße an die Bäume: 木を見て森を見ず.\n  the cat, the hat\n\n<|end|> \0\r\n"
TEXT = (WORDS * 36).encode()  # of an even number of tokens


def trained(text: str, size: int = 300) -> Tokenizer:
    """Byte-level BPE of so many tokens, one of which ends a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a text and a tokenizer of it."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_bytes(TEXT)
    trained(WORDS).save("bpe.json")
    return tmp_path


def made(splits: Splits = SPLITS) -> CorpusConfig:
    manifest, _ = tokenize(Path("text.txt"), Path("bpe.json"), Path("out"), splits)
    return load_corpus(str(manifest))


def of_bytes(splits: Splits = SPLITS) -> CorpusConfig:
    return CorpusConfig(
        name="bytes", kind="file", source="", licence="", path="text.txt", splits=splits
    )


def decoded(corpus: Corpus) -> list[bytes]:
    splits = (corpus.train, corpus.val, corpus.test)
    return [corpus.vocabulary.decode(split).tobytes() for split in splits]


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1), error
    return error


# What tokens stand for


def test_every_split_comes_back_byte_for_byte_and_begins_where_that_of_the_text_does(
    folder: Path,
) -> None:
    corpus = load(made(), folder)
    assert corpus.train.dtype == torch.uint16
    texts = decoded(corpus)
    assert b"".join(texts) == TEXT
    begins = len(texts[0]), len(texts[0] + texts[1])
    for begin, asked in zip(begins, SPLITS.offsets(len(TEXT)), strict=True):
        assert TEXT[asked:begin].decode(errors="ignore") == ""  # the rest of a character
    assert corpus.lengths() == {
        "train": len(texts[0]), "val": len(texts[1]), "test": len(texts[2]),
        "train_tokens": len(corpus.train),
    }  # fmt: skip
    assert len(corpus.train) < len(texts[0])
    for n in (1, 2, 3, 50, len(texts[1])):
        head = corpus.vocabulary.first(corpus.val, n)
        assert len(corpus.vocabulary.decode(head[:-1])) < n <= len(corpus.vocabulary.decode(head))


def test_ranks_give_the_bytes_and_tokens_that_stand_for_no_text_are_listed(folder: Path) -> None:
    tokens = {rank: token for rank, token in read_vocabulary(Path("bpe.json")).items() if token}
    ranks = dict(enumerate(sorted(tokens.values(), key=lambda t: (len(t), t))))
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in ranks.items()]
    Path("bpe.tiktoken").write_text("\n".join(lines) + "\n")
    manifest, size = tokenize(Path("text.txt"), Path("bpe.tiktoken"), Path("out"), SPLITS)
    config = load_corpus(str(manifest))
    assert (read_vocabulary(Path("bpe.tiktoken")), size) == (ranks, len(ranks))
    assert b"".join(decoded(load(config, folder))) == TEXT
    ids = np.fromfile(config.path, np.uint16)
    np.insert(ids, [5, 9], size).tofile(config.path)  # two documents end
    more = replace(config, sha256="", size=0, vocabulary=size + 1)
    with pytest.raises(DataError, match=f"nothing tells the bytes of token {size}:"):
        load(more, folder).lengths()
    corpus = load(replace(more, special=[size]), folder)
    assert sum(corpus.lengths()[name] for name in ("train", "val", "test")) == len(TEXT)
    assert corpus.vocabulary.byte_counts(torch.tensor([size, 0])).tolist() == [0, 1]


def with_header(ids: bytes, magic: int, n: int) -> bytes:
    return np.array([magic, 1, n, *[0] * 253], np.int32).tobytes() + ids


def test_the_files_of_nanogpt_and_llm_c_are_the_same_corpus(folder: Path) -> None:
    config = replace(made(), sha256="", size=0)
    plain = load(config, folder)
    ids = np.fromfile(config.path, np.uint16)
    wide = ids.astype(np.uint32).tobytes()
    narrow = replace(config, path="other.bin")
    files = [
        (narrow, with_header(ids.tobytes(), 20240520, len(ids))),
        (replace(narrow, dtype="uint32"), wide),
        (replace(narrow, dtype="uint32"), with_header(wide, 20240801, len(ids))),
    ]
    for manifest, content in files:
        Path("other.bin").write_bytes(content)
        other = load(manifest, folder)
        assert decoded(other) == decoded(plain)
        assert torch.equal(other.val.long(), plain.val.long())


def test_what_a_token_stands_for_is_part_of_what_identifies_the_text(folder: Path) -> None:
    config = made()
    content = json.loads(Path("bpe.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    Path("other.json").write_text(json.dumps(content))
    other = replace(config, tokenizer="other.json")
    assert load(config, folder).sha256 != load(other, folder).sha256


def test_a_text_that_does_not_come_back_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(Path("bpe.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    Path("lower.json").write_text(json.dumps(content))
    command = ["tokenize", "text.txt", "--tokenizer"]
    assert "do not come back from their tokens" in one_line(capsys, *command, "lower.json")
    assert "bpe (tokenizer): No such file" in one_line(capsys, *command, "bpe")
    Path("text.txt").write_bytes(b"caf\xe9 " * 50)
    assert "not UTF-8 at byte 3;" in one_line(capsys, *command, "bpe.json")
    assert not list(Path().glob("*_tokens.*"))
    Path("text.txt").write_bytes(TEXT)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "pip install 'growbench[tokens]'" in one_line(capsys, *command, "bpe.json")


# Bad inputs


def truncated(manifest: dict[str, Any]) -> None:
    with Path(manifest["path"]).open("ab") as file:
        file.write(b"x")


def widened(manifest: dict[str, Any]) -> None:
    ids = np.fromfile(manifest["path"], np.uint16)
    ids.astype(np.uint32).tofile(manifest["path"])


def without_decoder(manifest: dict[str, Any]) -> None:
    content = json.loads(Path("bpe.json").read_text())
    content["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    Path("bpe.json").write_text(json.dumps(content))


def headed(magic: int, n: int) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        path = Path(manifest["path"])
        path.write_bytes(with_header(path.read_bytes(), magic, n))

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "odd length": (truncated, "bytes are no whole number of uint16 tokens"),
    "beyond": (
        lambda m: m.update(vocabulary=280, tokenizer="small.json"),
        ": is it beyond corpus.vocabulary=280, is",
    ),
    "small": (lambda m: m.update(vocabulary=299), "corpus.vocabulary is 299, but bpe.json"),
    "narrow": (
        lambda m: m.update(dtype="uint32", splits={"val_start": 0.8, "test_start": 0.9}),
        "is corpus.dtype another, or",
    ),
    "wide": (widened, "every other token is 0; is corpus.dtype uint32?"),
    "no dtype": (lambda m: m.update(dtype="int8"), "corpus.dtype must be one of"),
    "header's dtype": (headed(20240801, 7), "its header says uint32, corpus.dtype is uint16"),
    "header's count": (headed(20240520, 7), "its header says 7 tokens, the file has"),
    "no bytes": (without_decoder, "its tokens do not tell their bytes (decoder WordPiece)"),
    "no tokenizer": (lambda m: m.update(tokenizer="absent"), "absent (tokenizer): No such file"),
    "text": (lambda m: m.update(tokenizer="text.txt"), "neither JSON of `tokenizers` nor"),
    "no file": (lambda m: m.update(path="absent.bin"), "No such file or directory: 'absent.bin'"),
    "too few": (lambda m: m.pop("tokenizer"), "a corpus of kind tokens needs corpus.tokenizer"),
    "other file": (lambda m: m.update(sha256="0" * 64), "corpus.sha256 is 000"),
    "default vocabulary": (
        lambda _: None,
        "workload.target.vocab_size must be above 299, the largest",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_corpus_is_refused_in_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made()
    change, message = BAD[name]
    manifest = Path("out/text_tokens.yaml")
    trained(WORDS, 280).save("small.json")
    content = yaml.safe_load(manifest.read_text())
    if name != "other file":
        del content["sha256"], content["size"]
    change(content)
    manifest.write_text(yaml.safe_dump(content))
    tiny_suite.prepare(folder)
    settings = [f"workload.corpus={manifest}", "protocol.allow_repeats=true"]
    command = ["plan", "tiny.yaml", "--no-probe", *settings]
    assert message in one_line(capsys, *command)


def test_a_manifest_to_be_copied_asks_which_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_suite.prepare(folder)
    error = one_line(capsys, "plan", "tiny.yaml", "workload.corpus=file")
    assert "workload.corpus.path=FILE" in error


# Scores


def naive_bpb(model: Transformer, corpus: Corpus) -> float:
    """Of the validation split, token by token, over the bytes of the text itself."""
    T, ids = model.config.seq_len, corpus.val.tolist()
    nats = [math.log(model.config.vocab_size)]
    for i in range(1, len(ids)):
        start = (i - 1) // T * T
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:i]]))[0, -1].tolist()
        nats.append(math.log(math.fsum(map(math.exp, logits))) - logits[ids[i]])
    return math.fsum(nats) / len(decoded(corpus)[1]) / math.log(2)


@pytest.mark.parametrize("large", [10**6, 2], ids=["whole", "in parts"])
def test_bits_per_byte_are_those_of_a_plain_loop_over_the_decoded_text(
    large: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.model.transformer.LARGE", large)
    corpus = load(made(Splits(val_start=0.8, test_start=0.83)), folder)
    model = trained_like(replace(TINY, vocab_size=300))
    found = score(model, corpus.val, 3, corpus.vocabulary)
    assert found.n_bytes == len(decoded(corpus)[1])
    assert found.bits_per_byte == pytest.approx(naive_bpb(model, corpus), rel=1e-12)
    sizes, nats = found.blocks(32)
    assert sum(sizes) == found.n_bytes
    assert math.fsum(nats) == pytest.approx(float(found.nats.sum()), rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_a_plain_loop_over_the_tokens(
    tied: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = load(made(), folder)
    model = trained_like(replace(TINY, vocab_size=300, tied=tied))
    windows = corpus.train[:32].long().view(4, 8)
    losses = [
        -model(window[None, : i + 1]).log_softmax(-1)[0, i, window[i + 1]]
        for window in windows
        for i in range(7)
    ]
    wanted = torch.autograd.grad(torch.stack(losses).mean(), list(model.parameters()))
    for large in (10**6, 2):
        monkeypatch.setattr("benchmark.model.transformer.LARGE", large)
        assert (model.large_head is None) == (large > 300)
        found = torch.autograd.grad(mean_nats(model, windows), list(model.parameters()))
        assert max(map(gap, wanted, found)) < 1e-12


# A source whose entropy is known

PIECES = [*(f"aa{c}" for c in "abcd"), *(f"a{c}" for c in "bcd"), *"bcd"]
"""Of these every text consists in one way, so they say as much of it as its bytes do."""


def piece_tokenizer() -> Tokenizer:
    """A token for each piece: no probability is lost to other ways to write a text."""
    merges = [("a", "a"), *(("aa", c) for c in "abcd"), *(("a", c) for c in "bcd")]
    names = [*"abcd", *(first + second for first, second in merges)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(PIECES)), "isolated")
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def knowing(source: MarkovSource, vocabulary: Vocabulary, pieces: Collection[str]) -> Transformer:
    """A transformer that predicts each piece as well as can be, from the last byte before it."""
    config = ModelConfig(
        d_model=4, n_layer=1, n_head=1, d_head=2, d_ff=4, seq_len=64, vocab_size=vocabulary.size
    )
    model = Transformer(config, generator=generator()).double()
    log_p = source.probabilities.log()
    scale = (1 / 4 + config.norm_eps) ** 0.5  # what the last norm divides a one by
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        assert model.head is not None
        head = model.head.get_parameter("weight").fill_(-1000.0)
        for token, text in vocabulary.tokens.items():
            if text.decode("latin-1") in pieces:
                symbols = [byte - ord("a") for byte in text]
                model.embed.weight[token, symbols[-1]] = 1.0
                rest = sum(float(log_p[a, b]) for a, b in pairwise(symbols))
                head[token] = (log_p[:, symbols[0]] + rest) * scale
    return model


def test_models_of_bytes_and_of_tokens_that_know_the_source_need_the_same_bits(
    folder: Path,
) -> None:
    source = MarkovSource(order=1, n_symbols=4, n_favoured=1, weight=8)
    text = source.sample(60_000)
    starts = [text.index(b"b", at) + 1 for at in (30_000, 45_000)]  # where a token ends
    text = text[: text.rindex(b"b") + 1]
    Path("text.txt").write_bytes(text)
    piece_tokenizer().save("bpe.json")
    splits = Splits(val_start=starts[0], test_start=starts[1])
    corpus, of_text = load(made(splits), folder), load(of_bytes(splits), folder)
    assert decoded(corpus) == [
        split.numpy().tobytes() for split in (of_text.train, of_text.val, of_text.test)
    ]
    assert {len(corpus.vocabulary.tokens[t]) for t in corpus.val.tolist()} == {1, 2, 3}
    by_token = score(knowing(source, corpus.vocabulary, PIECES), corpus.val, 8, corpus.vocabulary)
    by_byte = score(knowing(source, BYTES, "abcd"), of_text.val, 8)
    first = int(by_token.byte_counts[0])  # what has no context is charged by the vocabulary
    assert float(by_token.nats[1:].sum()) == pytest.approx(float(by_byte.nats[first:].sum()))
    assert by_token.bits_per_byte == pytest.approx(by_byte.bits_per_byte, abs=1e-3)
    assert by_token.bits_per_byte == pytest.approx(source.entropy_rate_bits(), abs=0.02)
    per_token = float(by_token.nats.mean()) / math.log(2)
    assert abs(per_token - source.entropy_rate_bits()) > 0.1  # bits per token are another thing


def test_copied_text_is_found_in_what_tokens_stand_for(folder: Path) -> None:
    random = np.random.default_rng(0)
    letters = random.integers(97, 123, 6000, dtype=np.uint8).tobytes()
    copy = letters[1000:1200]
    Path("text.txt").write_bytes(letters[:5000] + b"!" + copy + b"!" + letters[5000:])
    splits = Splits(val_start=5000, test_start=5500)
    found, plain = tripwires(made(splits), folder), tripwires(of_bytes(splits), folder)
    assert found["val"]["windows_in_train"] == 200 - WINDOW + 1
    assert (found["val"], found["test"]) == (plain["val"], plain["test"])
    assert found["train_bytes"] == plain["train_bytes"] == 5000


# A whole run


@pytest.mark.slow
def test_program_text_in_tokens_of_its_own_is_planned_run_reported_and_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_suite.prepare(tmp_path, budget=1e10))
    pylib = load_corpus("pylib").packages
    text = b"".join(
        packaged({"networkx": pylib["networkx"]}, ["networkx/algorithms/[a-c]*.py"], ["*/tests/*"])
    )[:400_000]
    Path("pylib.txt").write_bytes(text)
    trained(text.decode(), 4200).save("bpe.json")
    with pytest.raises(SystemExit):
        main(["tokenize", "pylib.txt", "--tokenizer", "bpe.json"])
    settings = capsys.readouterr().out.split()
    few = ["protocol.cuts=[]", "protocol.n_evaluations=2", "protocol.curve_bytes=2048"]
    for command in (["plan", "--no-probe"], ["run"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, "tiny.yaml", *settings, *few])
        assert stopped.value.code == 0, capsys.readouterr().err
    results = Path("results/local/tiny")
    assert [f.detail for f in audit(results) if f.status == "failed"] == []
    run = load_suite(results).runs[0]
    (final,) = (event for event in run.of("final") if event["split"] == "test")
    assert 1 < final["bpb"] < 8
    assert sum(final["block_bytes"]) == run.events[0]["test_bytes"]
    assert run.train_bytes == int(0.9 * len(text))
    assert run.train_tokens < 0.6 * run.train_bytes
    said = f"{run.train_bytes / 1e6:.1f} MB of pylib_tokens"
    assert said in (results / "report.md").read_text()
