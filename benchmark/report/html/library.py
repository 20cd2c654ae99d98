"""plotly.js as the page carries it: packed for size, unpacked by the browser."""

import base64
import re
import zlib
from importlib.resources import files

_PACKED = re.compile(rb'(<script type="text/plain" id="library">)([^<]+)')


def library() -> str:
    """plotly.js, from the wheel of the pinned plotly."""
    return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def packed(text: str) -> str:
    """The text as zlib's format in base64, which the script `library.js` reads."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(page: bytes) -> bytes:
    """The page with its library as text: what to compare, for builds of zlib pack differently.

    Raises:
        ValueError: what the page carries cannot be unpacked.
    """
    try:
        return _PACKED.sub(lambda m: m[1] + zlib.decompress(base64.b64decode(m[2])), page)
    except zlib.error as error:
        raise ValueError(f"the library of the page is damaged: {error}") from error
