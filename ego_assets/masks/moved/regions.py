"""Cuts a crop into regions that closed borders set apart, from small to large.

Here: small regions of like colour, the tree in which they are joined, how well a border sets each
node of it apart. Not here: which of them a hand touches (`touched`).

A watershed gives some hundred small regions. The two neighbours with the weakest border between
them are joined until one is left (an ultrametric contour map, Arbelaez 2006). What a finger parts
counts as neighbours too: it may be one thing behind it.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import cv2
import numpy as np

_CELL = 6
"""Pixels between the seeds of small regions."""
_SEEN = 7.0
"""CIELAB distance across a border that is seen."""
_COLOUR, _SMALL = 0.35, 30.0
"""What a colour's distance counts beside that of a step at a border; regions of fewer pixels are
joined the sooner."""


@dataclass(frozen=True, eq=False)
class RegionTree:
    """labels: (h, w) small region of each pixel, `count` where something is barred; members:
    (nodes, count) bool, which small regions each node is made of; one, other, length, distance:
    two neighbours, the pixels of their border, the CIELAB distance across it."""

    labels: np.ndarray
    count: int
    members: np.ndarray
    one: np.ndarray
    other: np.ndarray
    length: np.ndarray
    distance: np.ndarray

    def pixels(self, node: int) -> np.ndarray:
        """(h, w) bool: where a node lies."""
        found: np.ndarray = np.append(self.members[node], False)[self.labels]
        return found

    def sizes(self, where: np.ndarray | None = None) -> np.ndarray:
        """Of each node: its pixels, in all or in (h, w) bool `where`."""
        labels = self.labels.ravel() if where is None else self.labels[where]
        counts = np.bincount(labels, minlength=self.count + 1)[:-1]
        found: np.ndarray = self.members @ counts.astype(np.float32)
        return found

    def borders(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of some nodes: how much of their border is seen, 0 to 1; the mean distance across it; the
        same between their parts."""
        first, second = self.members[nodes][:, self.one], self.members[nodes][:, self.other]
        around, within = ((first != second) * self.length, (first & second) * self.length)
        length = np.maximum(around.sum(axis=1), 1)
        return (
            around @ (self.distance > _SEEN) / length,
            around @ self.distance / length,
            within @ self.distance / np.maximum(within.sum(axis=1), 1),
        )


def region_tree(image: np.ndarray, barred: np.ndarray, reach: float) -> RegionTree | None:
    """The regions of a crop (h, w, 3) uint8 RGB, outside of (h, w) bool `barred`; None if nearly
    all is barred. reach: pixels of what is barred that a thing may go on behind."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab *= np.array((0.5, 1.0, 1.0), np.float32)
    soft = cv2.GaussianBlur(lab, (0, 0), 1.0)
    steps = [cv2.Sobel(soft, cv2.CV_32F, *way, scale=0.125) for way in ((1, 0), (0, 1))]
    step = np.sqrt(sum((s**2).sum(axis=-1) for s in steps))
    labels, count = _small_regions(soft, step, barred)
    if count < 2:
        return None
    flat = labels.ravel()
    area = np.maximum(np.bincount(flat, minlength=count + 1)[:count], 1)
    sums = [np.bincount(flat, c.ravel(), count + 1)[:count] for c in cv2.split(lab)]
    mean = np.stack(sums, axis=1) / area[:, None]
    one, other, length, height = _borders(labels, count, step)
    across = _across(labels, count, round(reach))
    joins = _joins(area, mean, (one, other, length, height), across)
    members = np.zeros((count + len(joins), count), bool)
    members[np.arange(count), np.arange(count)] = True
    for node, (a, b) in enumerate(joins, count):
        members[node] = members[a] | members[b]
    distance = np.linalg.norm(mean[one] - mean[other], axis=1).astype(np.float32)
    return RegionTree(labels, count, members, one, other, length, distance)


def _small_regions(
    soft: np.ndarray, step: np.ndarray, barred: np.ndarray
) -> tuple[np.ndarray, int]:
    """(h, w) int32 labels, and how many: one around the least step of each cell of a grid."""
    height, width = barred.shape
    rows, columns = -(-height // _CELL), -(-width // _CELL)
    cells = np.full((rows * _CELL, columns * _CELL), np.inf, np.float32)
    cells[:height, :width] = np.where(barred, np.inf, step)
    cells = cells.reshape(rows, _CELL, columns, _CELL).swapaxes(1, 2).reshape(rows, columns, -1)
    least = cells.argmin(axis=-1)
    y, x = np.nonzero(np.isfinite(cells.min(axis=-1)))
    place = least[y, x]
    count = len(y)
    marks = np.zeros(barred.shape, np.int32)
    marks[y * _CELL + place // _CELL, x * _CELL + place % _CELL] = np.arange(1, count + 1)
    marks[barred] = count + 1
    cv2.watershed(np.clip(soft, 0, 255).astype(np.uint8), marks)
    lines = marks < 1
    grown = cv2.dilate(np.where(lines, 0, marks).astype(np.float32), np.ones((3, 3)))
    marks = np.where(lines, grown.astype(np.int32), marks)
    marks[barred] = count + 1
    return np.maximum(marks, 1) - 1, count


def _borders(
    labels: np.ndarray, count: int, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each two neighbours, the pixels that they have in common, and the sum of the steps there."""
    keys, heights = [], []
    for a, b, up, down in (
        (labels[:, :-1], labels[:, 1:], step[:, :-1], step[:, 1:]),
        (labels[:-1], labels[1:], step[:-1], step[1:]),
    ):
        where = (a != b) & (a < count) & (b < count)
        low, high = np.minimum(a, b)[where], np.maximum(a, b)[where]
        keys.append(low.astype(np.int64) * count + high)
        heights.append(np.maximum(up, down)[where])
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    length = np.bincount(place, minlength=len(pairs)).astype(np.float32)
    height = np.bincount(place, np.concatenate(heights), len(pairs)).astype(np.float32)
    return pairs // count, pairs % count, length, height


def _across(labels: np.ndarray, count: int, reach: int) -> set[tuple[int, int]]:
    """Regions that face each other across something barred no wider than `reach`."""
    found = set()
    for lines in (labels[::2], labels[:, ::2].T):
        barred = np.pad(lines == count, ((0, 0), (1, 1))).astype(np.int8)
        edges = np.diff(barred, axis=1)
        # Row by row, each stretch begins and ends once.
        row, start = np.nonzero(edges == 1)
        end = np.nonzero(edges == -1)[1]
        inner = (start > 0) & (end < lines.shape[1]) & (end - start <= reach)
        row, start, end = row[inner], start[inner], end[inner]
        found |= set(zip(lines[row, start - 1].tolist(), lines[row, end].tolist(), strict=True))
    return {(a, b) for a, b in found if a != b}


def _joins(
    area: np.ndarray,
    mean: np.ndarray,
    borders: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    across: set[tuple[int, int]],
) -> list[tuple[int, int]]:
    """The two nodes that each join joins, in order; the first one makes node `len(area)`."""
    sizes = area.tolist()
    colours = [tuple(c) for c in mean.tolist()]
    beside: list[dict[int, tuple[float, float]]] = [{} for _ in sizes]
    for a, b, length, height in zip(*(v.tolist() for v in borders), strict=True):
        beside[a][b] = beside[b][a] = (length, height)
    for a, b in across:
        if b not in beside[a]:
            beside[a][b] = beside[b][a] = (0.0, 0.0)

    def weight(a: int, b: int, length: float, height: float) -> float:
        (x, y, z), (u, v, w) = colours[a], colours[b]
        colour = math.dist((x, y, z), (u, v, w))
        border = height / length if length else 0.5 * colour
        least = min(sizes[a], sizes[b])
        return (border + _COLOUR * colour) * min(1.0, math.sqrt(least / _SMALL))

    heap = [
        (weight(a, b, *border), a, b)
        for a, others in enumerate(beside)
        for b, border in others.items()
        if a < b
    ]
    heapq.heapify(heap)
    gone = [False] * len(sizes)
    joins: list[tuple[int, int]] = []
    while heap:
        _, a, b = heapq.heappop(heap)
        if gone[a] or gone[b]:
            continue
        joins.append((a, b))
        node, size = len(sizes), sizes[a] + sizes[b]
        p, q = sizes[a] / size, sizes[b] / size
        colours.append(tuple(p * c + q * d for c, d in zip(colours[a], colours[b], strict=True)))
        sizes.append(size)
        gone[a] = gone[b] = True
        gone.append(False)
        mine: dict[int, tuple[float, float]] = {}
        for part in (a, b):
            for other, (length, height) in beside[part].items():
                if not gone[other]:
                    had = mine.get(other, (0.0, 0.0))
                    mine[other] = (had[0] + length, had[1] + height)
        beside.append(mine)
        for other, border in mine.items():
            beside[other][node] = border
            heapq.heappush(heap, (weight(node, other, *border), other, node))
    return joins
