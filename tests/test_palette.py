"""A drawing keeps its colours in a small PNG."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.report.drawing import COLOURS
from benchmark.report.palette import BITS, N_COLOURS, png

STEP = 2 ** (8 - BITS)


def shown(rgba: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Red, green and blue of the PNG's pixels."""
    picture = Image.open(io.BytesIO(png(rgba)))
    assert len(picture.getcolors() or ()) <= N_COLOURS
    return np.asarray(picture.convert("RGB")).astype(int)


def picture(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One opaque row of pixels of these colours (n, 3)."""
    return np.insert(colours, 3, 255, axis=1)[None]


def test_white_is_white_black_is_black_and_a_line_has_its_colour() -> None:
    lines = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    colours = np.array([(255, 255, 255), (0, 0, 0), *lines], np.uint8)
    found = shown(picture(colours))[0]
    assert found[:2].tolist() == [[255, 255, 255], [0, 0, 0]]
    assert np.abs(found - colours).max() < STEP


def test_of_too_many_colours_the_frequent_ones_stay_and_the_others_are_near() -> None:
    random = np.random.default_rng(0)
    shades = np.stack(np.meshgrid(*[np.arange(0, 256, 16)] * 3), axis=-1).reshape(-1, 3)
    frequent = random.choice(shades, 40, replace=False)
    colours = np.concatenate([np.repeat(frequent, 50, axis=0), shades]).astype(np.uint8)
    error = np.abs(shown(picture(colours))[0] - colours)
    assert error[: len(frequent) * 50].max() < STEP
    assert STEP < error.max() < 100
    assert error.mean() < 16


def test_equal_pictures_are_equal_bytes() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5000, 3), np.uint8)
    assert png(picture(colours)) == png(picture(colours.copy()))
