"""One file over HTTP: resumed where it stopped, retried a few times, placed only when whole.

What arrives is not trusted here: the caller holds the lock and checks the SHA-256 of the text.
"""

import http.client
import io
import ssl
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from benchmark.base.errors import DataError
from benchmark.base.paths import display_path

CHUNK = 1 << 20
"""Bytes moved at a time."""

_TIMEOUT = 30.0
_TRANSIENT = frozenset({408, 416, 429})  # and every 5xx
_RANGE_NOT_SATISFIABLE = 416
_BROKEN = (ConnectionError, TimeoutError, ssl.SSLError, HTTPException, URLError)


def fetch(url: str, target: Path, *, attempts: int = 4, pause: float = 1.0) -> None:
    """Download `url` to `target`; a `target` that is already there is left as it is.

    The body grows in `<target>.part`, which survives failures and interrupts: the next attempt, or
    the next call, asks the server for the rest only. Proxies are taken from the environment.

    Args:
        url: what to download.
        target: file to create, atomically, in an existing folder.
        attempts: how often to try while the failure looks transient.
        pause: seconds before the second attempt; doubles with each further one.

    Raises:
        DataError: the server refuses the file, or all attempts failed.
        OSError: the folder cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    for attempt in range(attempts):
        if target.exists():
            return
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        reason, transient = _continue(url, part)
        if reason is None:
            part.replace(target)
            return
        if not transient:
            break
    raise DataError(
        f"cannot download {url} ({reason}): run again, set corpus.url to a mirror, "
        f"or place a copy of that file at {display_path(target)}"
    )


def _continue(url: str, part: Path) -> tuple[str | None, bool]:
    """Fetch what `part` lacks; returns why that failed (None: it is whole), and whether to retry.

    Only the network is forgiven: a full disk or an unwritable folder is raised as it is.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.build_opener().open(request, timeout=_TIMEOUT) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            length = response.headers.get("Content-Length")
            with part.open("ab" if resumed else "wb") as file:
                file.writelines(_chunks(response))
    except HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:  # the part is longer than the file: start over
            part.unlink(missing_ok=True)
        transient = error.code in _TRANSIENT or error.code >= http.client.INTERNAL_SERVER_ERROR
        return f"HTTP {error.code} {error.reason}", transient
    except ValueError as error:  # an address that is none
        return _why(error), False
    except _BROKEN as error:
        return _why(error), True
    got = part.stat().st_size
    if length is not None and got != (total := int(length) + have * resumed):
        return f"{got} of {total} bytes arrived", True
    return None, True


def _chunks(response: io.BufferedIOBase) -> Iterator[bytes]:
    """The body as it arrives; what the network does is not taken for the disk's error."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except OSError as error:
        raise URLError(error) from error


def _why(error: Exception) -> str:
    """One line, whatever urllib raised."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
