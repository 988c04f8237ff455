# SPDX-License-Identifier: Apache-2.0
"""Digits drawn from fonts, as MNIST's are laid out: public images, of which nobody needs protection."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

__all__ = ["font_digits"]

# They come with matplotlib, and have digits as people know them.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)
NUM_CLASSES = 10
SIDE, BOX = 28, 20
# Drawn large, turned and slanted, then made small.
DRAWN = 96


def font_digits(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return digits (count, 1, 28, 28) with intensities 0 to 1, every class as often, and their classes (count,).

    As in MNIST, the longer side of a digit has 20 pixels, and its centre of mass is in the middle.
    """
    generator = np.random.default_rng(seed)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", 2 * DRAWN // 3) for name in FONTS]
    labels = torch.arange(count) % NUM_CLASSES
    images = [_digit(str(label), generator, fonts) for label in tqdm(labels.tolist(), desc="digits of fonts")]
    return torch.from_numpy(np.stack(images))[:, None], labels


def _digit(text: str, generator: np.random.Generator, fonts: list[ImageFont.FreeTypeFont]) -> np.ndarray:
    font = fonts[generator.integers(len(fonts))]
    sheet = Image.new("L", (DRAWN, DRAWN))
    width = int(generator.integers(0, 5))
    ImageDraw.Draw(sheet).text((DRAWN / 2, DRAWN / 2), text, 255, font, anchor="mm", stroke_width=width)
    angle, slant = np.deg2rad(generator.normal(0, 8)), generator.normal(0.1, 0.2)
    stretch = np.exp(generator.normal(0, 0.15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[stretch, slant], [0, 1 / stretch]])
    offset = DRAWN / 2 - matrix @ np.full(2, DRAWN / 2)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    turned = sheet.transform(sheet.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return _laid_out(turned.crop(turned.getbbox()))


def _laid_out(digit: Image.Image) -> np.ndarray:
    scale = BOX / max(digit.size)
    size = tuple(max(1, round(scale * side)) for side in digit.size)
    pixels = np.asarray(digit.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
    rows, columns = np.indices(pixels.shape)
    middle = [round(SIDE / 2 - 0.5 - float((axis * pixels).sum() / pixels.sum())) for axis in (rows, columns)]
    top, left = (min(max(start, 0), SIDE - side) for start, side in zip(middle, pixels.shape, strict=True))
    image = np.zeros((SIDE, SIDE), dtype=np.float32)
    image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return image
