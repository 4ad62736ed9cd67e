"""Procedural textures: wood, cloth, plaster, printed cartons; and colours of skin."""

from __future__ import annotations

import cv2
import numpy as np

SKIN_RGB = np.array(
    [
        [236, 188, 160],
        [224, 172, 140],
        [205, 150, 115],
        [176, 120, 86],
        [141, 90, 62],
        [104, 66, 46],
    ],
    dtype=np.float32,
)


def noise(
    rng: np.random.Generator, height: int, width: int, octaves: int, first: int
) -> np.ndarray:
    """(H, W) float32 of sums of smooth noise, each octave half as strong, mean 0, deviation 1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        coarse = rng.standard_normal((min(cells, height), min(cells, width))).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    even: np.ndarray = (total - total.mean()) / total.std()
    return even


def surface(rng: np.random.Generator, size: tuple[int, int], base: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a table, wall or floor: grain, speckles and a few marks."""
    height, width = size
    grain = noise(rng, height, width, 7, 4)
    fine = noise(rng, height, width, 2, min(height, width) // 6)
    image: np.ndarray = (
        base + 11 * grain[..., None] + 9 * fine[..., None] * np.array([1.0, 0.9, 0.8])
    )
    image = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(max(24, height * width // 9000)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(2, 9)), int(rng.integers(2, 9)))
        shade = base * rng.uniform(0.55, 1.3) + rng.normal(0, 12, 3)
        color = tuple(int(c) for c in np.clip(shade, 0, 255))
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(image, centre, axes, angle, 0, 360, color, -1, cv2.LINE_AA)
    return image


def tiles(
    rng: np.random.Generator, size: tuple[int, int], base: np.ndarray, cell: int
) -> np.ndarray:
    """A wall or cloth of cells of uneven colour, with joints and posters."""
    image = surface(rng, size, base)
    height, width = size
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            shade = 1 + 0.10 * float(rng.standard_normal())
            block = image[top : top + cell, left : left + cell]
            block[:] = np.clip(block * shade, 0, 255).astype(np.uint8)
    for _ in range(height * width // 70_000):
        poster(rng, image)
    return image


def poster(rng: np.random.Generator, image: np.ndarray) -> None:
    """Paste one printed rectangle onto a texture."""
    height, width = image.shape[:2]
    h, w = int(rng.integers(40, 110)), int(rng.integers(40, 110))
    if h >= height or w >= width:
        return
    top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
    image[top : top + h, left : left + w] = carton(rng, (h, w), rng.uniform(90, 225, 3))


def carton(rng: np.random.Generator, size: tuple[int, int], base: np.ndarray) -> np.ndarray:
    """A printed face of a box: stripes, blobs, letters, of strong contrast."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.clip(base, 20, 235).astype(np.uint8)
    for _ in range(7):
        color = tuple(int(c) for c in rng.uniform(10, 245, 3))
        one = (int(rng.integers(width)), int(rng.integers(height)))
        other = (int(rng.integers(width)), int(rng.integers(height)))
        shape = int(rng.integers(3))
        if shape == 0:
            cv2.rectangle(image, one, other, color, -1)
        elif shape == 1:
            cv2.circle(image, one, int(rng.integers(3, max(4, width // 5))), color, -1, cv2.LINE_AA)
        else:
            cv2.line(image, one, other, color, max(1, width // 24), cv2.LINE_AA)
    letters = "".join(chr(65 + int(rng.integers(26))) for _ in range(4))
    color = tuple(int(c) for c in rng.uniform(0, 255, 3))
    scale = width / 90
    origin = (int(width * 0.08), int(height * rng.uniform(0.35, 0.85)))
    cv2.putText(
        image,
        letters,
        origin,
        cv2.FONT_HERSHEY_DUPLEX,
        scale,
        color,
        max(1, width // 40),
        cv2.LINE_AA,
    )
    speckle = rng.normal(0, 7, (height, width, 1))
    return np.clip(image + speckle, 0, 255).astype(np.uint8)
