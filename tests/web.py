"""A real web server on this machine that can fail in the ways a distant one does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from typing_extensions import override


@dataclass
class Site:
    """What the server holds, how its next answers go wrong, and what it was asked."""

    body: bytes
    url: str = ""
    faults: list[int | str] = field(default_factory=list)
    """One per request, then none: a status to answer, "cut" the body in half, or "hang up"."""

    ranges: bool = True
    """Whether it knows the Range header."""

    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""

    paths: list[str] = field(default_factory=list)


@contextmanager
def serve(body: bytes) -> Iterator[Site]:
    """Serve `body` at every path until the context ends."""
    site = Site(body)

    class Handler(BaseHTTPRequestHandler):
        @override
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            site.asked.append(wanted)
            site.paths.append(self.path)
            fault = site.faults.pop(0) if site.faults else None
            start = int(wanted[6:].rstrip("-")) if wanted and site.ranges else 0
            if fault == "hang up":
                return
            if isinstance(fault, int):
                self.send_error(fault)
            elif start and start >= len(site.body):
                self.send_error(416)
            else:
                rest = site.body[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}/text.zip"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
