"""A corpus is exactly the bytes its manifest describes, or an error of one line."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from web import Site, serve

from benchmark.base.errors import ConfigError, DataError
from benchmark.data.corpora import Corpus, CorpusConfig, Splits, load
from benchmark.data.sources import packaged
from benchmark.data.synthetic import MarkovSource
from benchmark.plan.reading import filled, read

MANIFESTS = Path(__file__).parent.parent / "configs" / "corpus"
TEXT = bytes(range(256)) * 40 + b"caf\xc3\xa9 \xff\xfe broken\r\n"
CURVE_BYTES = 256 * 1024


def manifest(name: str) -> CorpusConfig:
    layer = {"path": "text.bin"} if name == "file" else {}
    return filled(CorpusConfig, ("", read(MANIFESTS / f"{name}.yaml", CorpusConfig)), ("", layer))


def packed(*texts: bytes, also: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (also or {}).items():
            archive.writestr(name, content)
        for index, text in enumerate(texts):
            archive.writestr(f"text{index}", text)
    return buffer.getvalue()


def locked(archive: bytes) -> bytes:
    """A zip archive of one file that says that it has a password."""
    content, entry = bytearray(archive), archive.index(b"PK\x01\x02")
    content[6] |= 1
    content[entry + 8] |= 1
    return bytes(content)


def tarred(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("text")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def local(path: Path) -> CorpusConfig:
    return replace(manifest("file"), path=str(path))


def remote(site: Site, text: bytes = TEXT) -> CorpusConfig:
    return replace(
        manifest("enwik8"),
        name="remote",
        url=site.url,
        size=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        splits=Splits(val_start=0.5, test_start=0.75),
    )


def whole(corpus: Corpus) -> bytes:
    return bytes(torch.cat([corpus.train, corpus.val, corpus.test]).tolist())


def start(text: Tensor, n_bytes: int) -> bytes:
    return bytes(text[:n_bytes].tolist())


def refusal(config: CorpusConfig, cache: Path) -> str:
    with pytest.raises(DataError) as failure:
        load(config, cache)
    message = str(failure.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(packed(TEXT)) as site:
        yield site


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_manifest_says_what_whose_and_how_to_check_it(path: Path) -> None:
    config = manifest(path.stem)
    assert config.name == path.stem
    assert config.source
    assert config.licence
    if config.kind != "file":
        assert config.size > 0
        assert len(config.sha256) == 64
        config.splits.offsets(config.size)


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_the_customary_splits_are_90_5_and_5_million_bytes(name: str) -> None:
    assert manifest(name).splits.offsets(manifest(name).size) == (90_000_000, 95_000_000)


def test_wikipedia_is_cut_between_articles_and_needs_no_gensim_import(tmp_path: Path) -> None:
    corpus = load(manifest("wikipedia"), tmp_path)
    assert "gensim" not in sys.modules
    assert len(whole(corpus)) == 6_089_746
    assert start(corpus.train, 10) == b"<mediawiki"
    for split, title in ((corpus.val, b"Amateur astronomy"), (corpus.test, b"Abstract (law)")):
        assert start(split, 100).startswith(b"  <page>\n    <title>" + title)
        assert len(split) > CURVE_BYTES


@pytest.mark.slow
def test_pylib_is_program_text_of_many_packages_cut_between_sub_packages(tmp_path: Path) -> None:
    config = manifest("pylib")
    corpus = load(config, tmp_path)
    assert corpus.train[-1] == 0 == corpus.val[-1]  # the separator
    assert start(corpus.val, 25) == b"# graph drawing and inter"
    assert start(corpus.test, 18) == b'"""\nUnstructured t'
    assert not re.search(rb"\ndef test_\w+\(\):\n    assert", whole(corpus))
    assert len(corpus.val) > CURVE_BYTES < len(corpus.test)
    assert len(config.packages) == 7


def test_the_synthetic_manifest_pins_the_bytes_of_its_seed(tmp_path: Path) -> None:
    config = manifest("synthetic")
    corpus = load(config, tmp_path)
    assert config.markov is not None
    assert whole(corpus) == config.markov.sample(config.size)
    other = replace(config, markov=MarkovSource(seed=1), sha256="", size=5000)
    assert load(other, tmp_path).sha256 == load(other, tmp_path).sha256 != corpus.sha256
    assert "corpus.sha256" in refusal(replace(other, sha256=config.sha256), tmp_path / "empty")


def test_bytes_are_never_decoded(tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_bytes(TEXT)
    corpus = load(local(tmp_path / "text.bin"), tmp_path / "cache")
    assert whole(corpus) == TEXT
    assert corpus.sha256 == hashlib.sha256(TEXT).hexdigest()
    assert corpus.train.dtype == torch.uint8
    assert not (tmp_path / "cache").exists()  # read where it lies


def test_writing_to_a_corpus_does_not_reach_the_file(tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_bytes(TEXT)
    load(local(tmp_path / "text.bin"), tmp_path).train.zero_()
    assert (tmp_path / "text.bin").read_bytes() == TEXT


def test_a_text_is_prepared_once_and_then_only_read(site: Site, tmp_path: Path) -> None:
    config = remote(site)
    first = load(config, tmp_path)
    prepared = tmp_path / "remote" / f"{config.sha256}.bin"
    written = prepared.stat().st_mtime_ns
    assert whole(first) == whole(load(config, tmp_path)) == TEXT
    assert len(site.asked) == 1
    assert prepared.stat().st_mtime_ns == written
    left = {path.name for path in prepared.parent.iterdir()}
    assert left == {".lock", "text.zip", prepared.name}


def test_racing_loaders_download_once(site: Site, tmp_path: Path) -> None:
    seen: list[bytes] = []
    racers = [
        threading.Thread(target=lambda: seen.append(whole(load(remote(site), tmp_path))))
        for _ in range(4)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert seen == [TEXT] * 4
    assert len(site.asked) == 1


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_cached_text_is_named_and_not_used(
    site: Site, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = remote(site)
    load(config, tmp_path)
    prepared = tmp_path / "remote" / f"{config.sha256}.bin"
    text = bytearray(TEXT)
    text[5000] ^= 1
    prepared.write_bytes(text if damage == "flip" else TEXT[:-1])
    message = refusal(config, tmp_path)
    assert str(prepared.relative_to(tmp_path)) in message
    assert "delete it to prepare it again" in message
    prepared.unlink()
    site.faults = [500]  # the archive is still there: no network is needed
    assert whole(load(config, tmp_path)) == TEXT


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (packed(TEXT.replace(b"broken", b"forged")), "corpus.sha256"),
        (packed(TEXT + b"!"), "corpus.size"),
        (b"<html>this is not the file</html>", "corpus.size"),
        (packed(TEXT)[:-30], "is damaged"),
        (packed(TEXT)[:60] + b"damage" + packed(TEXT)[66:], "is damaged"),
    ],
    ids=["forged", "longer", "no archive", "short archive", "bad member"],
)
def test_a_wrong_download_is_refused_and_deleted(
    site: Site, tmp_path: Path, body: bytes, complaint: str
) -> None:
    config, right = remote(site), site.body
    site.body = body
    message = refusal(config, tmp_path)
    assert complaint in message
    assert "run again" in message
    assert [path.name for path in (tmp_path / "remote").iterdir()] == [".lock"]
    site.body = right
    assert whole(load(config, tmp_path)) == TEXT


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/text.gz", gzip.compress(TEXT)),
        ("/text.xz", lzma.compress(TEXT)),
        ("/text.bz2", bz2.compress(TEXT)),
        ("/TEXT.ZIP", packed(TEXT)),
        ("/dl?f=text.zip", packed(TEXT)),
        ("/?f=text.zip", packed(TEXT)),
        ("/text.zip", packed(TEXT, also={"__MACOSX/._text0": b"", "a/": b"", "a/.DS_Store": b""})),
        ("/text.zip", TEXT),
        ("/text", TEXT),
    ],
)
def test_an_archive_is_told_by_its_content(
    site: Site, tmp_path: Path, path: str, body: bytes
) -> None:
    site.body = body
    config = replace(remote(site), url=site.url.removesuffix("/text.zip") + path)
    assert whole(load(config, tmp_path)) == TEXT


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (packed(TEXT, TEXT), "text.zip is a zip archive of 2 files"),
        (locked(packed(TEXT)), "password required"),
        (gzip.compress(tarred(TEXT)), "text.zip holds a tar archive"),
        (b"7z\xbc\xaf\x27\x1c" + TEXT, "text.zip holds a 7-Zip archive"),
        (b"\x28\xb5\x2f\xfd" + TEXT, "text.zip holds a Zstandard archive"),
    ],
    ids=["two files", "password", "tar", "7-Zip", "Zstandard"],
)
def test_an_archive_that_cannot_be_unpacked_is_named_and_kept(
    site: Site, tmp_path: Path, body: bytes, words: str
) -> None:
    site.body = body
    message = refusal(remote(site), tmp_path)
    assert words in message
    assert message.endswith("or in zip, gzip, bzip2 or xz: unpack it (kind: file)")
    assert (tmp_path / "remote" / "text.zip").read_bytes() == body


@pytest.mark.parametrize(
    ("body", "kind"),
    [(gzip.compress(TEXT), "gzip"), (packed(TEXT), "zip"), (tarred(TEXT), "tar")],
)
def test_a_local_archive_is_never_trained_on(tmp_path: Path, body: bytes, kind: str) -> None:
    (tmp_path / "text.gz").write_bytes(body)
    message = refusal(local(tmp_path / "text.gz"), tmp_path)
    assert f"text.gz (corpus.path) is a {kind} archive, which would be trained on as" in message


def test_an_archive_placed_by_hand_replaces_the_network(site: Site, tmp_path: Path) -> None:
    site.faults = [404, 404]
    message = refusal(remote(site), tmp_path)
    place = Path(message.rpartition(" at ")[2])
    assert place == tmp_path / "remote" / "text.zip"
    place.write_bytes(packed(TEXT))
    assert whole(load(remote(site), tmp_path)) == TEXT
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"packages": {"gensim": "0.1"}}, r"gensim 0.1 .* the installed release is 4"),
        ({"packages": {"no-such-package": "4.4.0"}}, "no-such-package 4.4.0 .*, which is not inst"),
        ({"include": ["gensim/*.txt.gz"]}, r"list no file like gensim/\*\.txt\.gz"),
        ({"include": ["gensim/__init__.py"]}, "text from gensim has size .*corpus.size is 6089746"),
    ],
)
def test_another_package_than_the_manifest_names_is_refused(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    config = replace(manifest("wikipedia"), **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=complaint):
        load(config, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_files_of_a_package_are_joined_in_sorted_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"tiny/b.py": b"second", "tiny/a/tests/x.py": b"left out", "tiny/a/c.py": b"first"}
    info = tmp_path / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    include, exclude = ["tiny/*.py"], ["*/tests/*"]
    assert b"".join(packaged({"tiny": "1.0"}, include, exclude)) == b"first\0second"
    held_out = [["tiny/a/*"], ["tiny/nothing/*"]]
    assert b"".join(packaged({"tiny": "1.0"}, include, exclude, held_out)) == b"second\0first"


def test_a_local_file_may_be_pinned(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(TEXT)
    pinned = replace(local(path), sha256=hashlib.sha256(TEXT).hexdigest(), size=len(TEXT))
    assert whole(load(pinned, tmp_path)) == TEXT
    path.write_bytes(TEXT[::-1])
    assert "corpus.path" in refusal(pinned, tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), (b"", "cuts 0 bytes"), (b"0123456789", "each needs 2")],
    ids=["missing", "empty", "too small"],
)
def test_a_useless_local_file_is_refused(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "text.bin"
    if content is not None:
        path.write_bytes(content)
    assert complaint in refusal(local(path), tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    message = refusal(remote(site), tmp_path / "cache")
    assert "cannot read or prepare corpus remote" in message
    assert "cache" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_cache_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir(mode=0o500)
    assert "Permission denied" in refusal(remote(site), tmp_path)


@pytest.mark.parametrize(
    ("val_start", "test_start", "offsets"),
    [(0.5, 0.75, (50, 75)), (90, 95, (90, 95)), (0.9, 96, (90, 96)), (2, 98, (2, 98))],
)
def test_splits_are_offsets_or_fractions(
    val_start: float, test_start: float, offsets: tuple[int, int]
) -> None:
    assert Splits(val_start=val_start, test_start=test_start).offsets(100) == offsets


@pytest.mark.parametrize(
    ("val_start", "test_start"), [(0.9, 0.9), (0.9, 0.5), (1, 50), (50, 99), (-5, 50), (50, 200)]
)
def test_splits_without_text_are_refused_by_key(val_start: float, test_start: float) -> None:
    with pytest.raises(DataError, match=r"corpus\.splits"):
        Splits(val_start=val_start, test_start=test_start).offsets(100)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("file", {"kind": "tape"}, "corpus.kind must be one of package, download, file, synth"),
        ("file", {"path": ""}, "kind file needs corpus.path"),
        ("enwik8", {"url": "", "sha256": ""}, "needs corpus.url, corpus.sha256"),
        ("enwik8", {"url": "a.org/t.zip"}, "must begin with http:// or https://, got 'a.org/t.z"),
        ("pylib", {"packages": {}}, "needs corpus.packages"),
        ("synthetic", {"markov": None}, "needs corpus.markov"),
    ],
)
def test_an_incomplete_manifest_is_refused_by_key(
    name: str, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        replace(manifest(name), **changes)  # type: ignore[arg-type]
