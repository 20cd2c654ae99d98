"""Downloads resume, retry, and end whole or with one line that says what to do."""

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from web import Site, serve

from benchmark.base.errors import DataError
from benchmark.base.paths import display_path
from benchmark.data.download import _chunks, fetch

BODY = bytes(torch.randint(256, (300_000,), generator=torch.Generator().manual_seed(0)).tolist())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(BODY) as site:
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "text.zip"


def part_of(target: Path) -> Path:
    return target.with_name("text.zip.part")


def test_a_download_arrives_byte_for_byte_and_leaves_nothing_else(site: Site, target: Path) -> None:
    fetch(site.url, target)
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_a_file_in_place_is_not_fetched_again(site: Site, target: Path) -> None:
    target.write_bytes(b"placed by hand")
    fetch(site.url, target)
    assert target.read_bytes() == b"placed by hand"
    assert site.asked == []


def test_a_truncated_body_is_noticed_and_only_the_rest_is_asked_for(
    site: Site, target: Path
) -> None:
    site.faults = ["cut", "cut"]
    fetch(site.url, target, pause=0)
    assert site.asked == [None, "bytes=150000-", "bytes=225000-"]
    assert target.read_bytes() == BODY


def test_a_later_call_resumes_what_an_interrupted_one_left(site: Site, target: Path) -> None:
    part_of(target).write_bytes(BODY[:123_456])
    fetch(site.url, target)
    assert site.asked == ["bytes=123456-"]
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()


def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Site, target: Path) -> None:
    site.ranges = False
    site.faults = ["cut"]
    fetch(site.url, target, pause=0)
    assert site.asked == [None, "bytes=150000-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 408, "hang up"])
def test_a_passing_failure_is_retried(site: Site, target: Path, fault: int | str) -> None:
    site.faults = [fault, fault]
    fetch(site.url, target, pause=0)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("extra", [b"", b"and more"])
def test_a_part_as_long_as_the_file_or_longer_is_dropped(
    site: Site, target: Path, extra: bytes
) -> None:
    part_of(target).write_bytes(BODY + extra)
    fetch(site.url, target, pause=0)
    assert site.asked == [f"bytes={len(BODY + extra)}-", None]
    assert target.read_bytes() == BODY


def test_retries_are_bounded_and_what_arrived_is_kept(site: Site, target: Path) -> None:
    site.faults = ["cut", 503, 503, 503]
    with pytest.raises(DataError, match="HTTP 503"):
        fetch(site.url, target, attempts=3, pause=0)
    assert len(site.asked) == 3
    assert part_of(target).read_bytes() == BODY[:150_000]
    assert not target.exists()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_retried(site: Site, target: Path, status: int) -> None:
    site.faults = [status]
    with pytest.raises(DataError, match=f"HTTP {status}"):
        fetch(site.url, target)
    assert len(site.asked) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1/caf\xe9.zip", "http://[::1/text.zip"])
def test_an_address_that_is_none_is_refused_in_one_line(target: Path, url: str) -> None:
    with pytest.raises(DataError, match="cannot download http"):
        fetch(url, target)


def test_offline_says_in_one_line_what_to_fetch_and_where_to_put_it(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(BODY) as gone:
        url = gone.url
    monkeypatch.chdir(target.parent)
    with pytest.raises(DataError) as failure:
        fetch(url, target, attempts=2, pause=0)
    message = str(failure.value)
    assert url in message
    assert "refused" in message
    assert message.endswith("place a copy of that file at text.zip")
    assert "\n" not in message


def test_the_proxy_of_the_environment_is_used(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url.removesuffix("/text.zip"))
    fetch("http://corpus.invalid/text.zip", target)
    assert site.paths == ["http://corpus.invalid/text.zip"]
    assert target.read_bytes() == BODY


def test_an_unwritable_folder_is_not_mistaken_for_a_network_failure(
    site: Site, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        fetch(site.url, tmp_path / "missing" / "text.zip")
    assert len(site.asked) == 1


def test_a_route_that_is_lost_on_the_way_is_the_networks_failure() -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if not (chunk := super().read(size)):
                raise OSError(errno.EHOSTUNREACH, "No route to host")
            return chunk

    chunks = _chunks(Cut(b"text"))
    assert next(chunks) == b"text"
    with pytest.raises(URLError, match="No route to host"):
        next(chunks)


def test_messages_show_paths_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert display_path(tmp_path / "cache" / "text") == str(Path("cache") / "text")
    assert display_path(tmp_path.parent / "text") == str(tmp_path.parent / "text")
