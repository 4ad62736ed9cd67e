"""Turns decoded pictures into the RGB that models see: BT.709, full range, 8 bits.

Every reader of pictures for models goes through here (the search for cuts does not: it sees what
PySceneDetect sees). Here: what a stream says of its colours, and the conversion. Not here: the
tables of the tone mapping (`tone`), decoding (`decode`).

- The stream's matrix and range are honoured. A picture says it, or else the container.
- Without a matrix, a picture of 720 lines or more is BT.709, and a smaller one BT.601, whichever
  way up it is stored; so is one of 1280 columns, which lost lines to a wide-screen crop.
- PQ and HLG are tone-mapped to BT.709, whatever their primaries; without any, BT.2020 is assumed.
  BT.2020 and Display P3 in standard range are brought to BT.709's primaries. Pictures are shrunk to
  the size that is asked for before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

UNSPECIFIED = 2
"""Of matrix, transfer and primaries, as H.273 has it."""
RESERVED = 3
"""Says nothing either; libav refuses it."""
BT709, BT470BG, SMPTE170M, BT2020, BT2020_CONSTANT = 1, 5, 6, 9, 10
P3_D65 = 12
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2
_HD_LINES, _HD_COLUMNS = 720, 1280

TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    PQ: "smpte2084",
    17: "smpte428",
    HLG: "arib-std-b67",
}
PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    BT2020: "bt2020",
    10: "smpte428",
    11: "smpte431",
    P3_D65: "smpte432",
    22: "ebu3213",
}
MATRICES = {
    0: "gbr",
    BT709: "bt709",
    4: "fcc",
    BT470BG: "bt470bg",
    SMPTE170M: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    BT2020: "bt2020nc",
    BT2020_CONSTANT: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
    15: "ipt-c2",
    16: "ycgco-re",
    17: "ycgco-ro",
}
RANGES = {LIMITED: "limited", FULL: "full"}
"""Code points of H.273, and the names that FFmpeg has for them (its ranges are tv and pc)."""


@dataclass(frozen=True)
class Colours:
    """What a picture or a stream says of its colours: code points of H.273; range 0: nothing."""

    matrix: int = UNSPECIFIED
    range: int = 0
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    def or_else(self, other: Colours) -> Colours:
        """These, and where they say nothing, what the other says."""
        return Colours(
            other.matrix if self.matrix == UNSPECIFIED else self.matrix,
            self.range or other.range,
            other.transfer if self.transfer not in TRANSFERS else self.transfer,
            other.primaries if self.primaries not in PRIMARIES else self.primaries,
        )

    def where_silent(self, other: Colours) -> Colours:
        """These, but only what the other leaves open."""
        return Colours(
            self.matrix if other.matrix == UNSPECIFIED else UNSPECIFIED,
            self.range if not other.range else 0,
            self.transfer if other.transfer not in TRANSFERS else UNSPECIFIED,
            self.primaries if other.primaries not in PRIMARIES else UNSPECIFIED,
        )

    def names(self) -> dict[str, str | None]:
        """Columns of `video_manifest`; None: the stream does not say."""
        return {
            "color_transfer": TRANSFERS.get(self.transfer),
            "color_primaries": PRIMARIES.get(self.primaries),
            "color_matrix": MATRICES.get(self.matrix),
            "color_range": RANGES.get(self.range),
        }

    @property
    def kind(self) -> str | None:
        """Name of the tables that bring it to BT.709 (`tone`); None: it is there, near enough."""
        if self.transfer == PQ:
            return "pq"
        if self.transfer == HLG:
            return "hlg"
        return "wide" if self.gamut != BT709 else None

    @property
    def gamut(self) -> int:
        """Of `tone.TO_BT709`. Primaries that it lacks are near those of BT.709, or rare."""
        if self.primaries in (BT2020, P3_D65):
            return self.primaries
        is_unsaid_hdr = self.transfer in (PQ, HLG) and self.primaries not in PRIMARIES
        return BT2020 if is_unsaid_hdr else BT709


UNTAGGED = Colours()
_PLANES = "gbrp16le"
"""Of what is tone-mapped: libav makes planes in half of the time that it takes for pixels."""
_CONVERTED = {0, BT709, UNSPECIFIED, 4, BT470BG, SMPTE170M, 7, BT2020}
_NEAREST = {RESERVED: UNSPECIFIED, BT2020_CONSTANT: BT2020}


def colours_of(described: Any) -> Colours:
    """What a picture of libav's, or a codec context, says."""
    matrix = int(described.colorspace)
    return Colours(
        UNSPECIFIED if matrix == RESERVED else matrix,
        int(described.color_range),
        int(described.color_trc),
        int(described.color_primaries),
    )


def unsupported_matrix(colours: Colours) -> str | None:
    """Say so of a matrix that libav does not convert from, nor from one near it; None: it does."""
    if colours.matrix in _CONVERTED or colours.matrix in _NEAREST:
        return None
    name = MATRICES.get(colours.matrix, f"number {colours.matrix}")
    return f"its colours are coded with the matrix {name}, which is not supported"


def convertible(picture: Any) -> Any:
    """The picture, tagged with the nearest matrix that libav converts from, if it lacks its own.

    To be called before libav converts or filters a picture. Others keep what they say.
    """
    nearest = _NEAREST.get(int(picture.colorspace))
    if nearest is not None:
        picture.colorspace = nearest
    return picture


def matrix_by_size(width: int, height: int) -> int:
    """The matrix of a picture that does not say."""
    is_hd = min(width, height) >= _HD_LINES or max(width, height) >= _HD_COLUMNS
    return BT709 if is_hd else SMPTE170M


class RgbConverter:
    """Makes RGB of one stream's pictures, one after another, in one thread.

    said: by the container, for pictures that say nothing of their own.
    """

    def __init__(self, said: Colours) -> None:
        self._said = said
        # One for all frames; for each of them it would be set up, with threads, again.
        self._scaler = VideoReformatter()

    def convert(self, picture: Any, width: int, height: int, *, shrinks: bool) -> np.ndarray:
        """Return (height, width, 3) uint8. Raises libav's errors for a matrix it does not know."""
        own = colours_of(convertible(picture))
        colours = own.or_else(self._said)
        kind = colours.kind
        shown = self._scaler.reformat(
            picture,
            format=_PLANES if kind else "rgb24",
            width=width,
            height=height,
            interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
            src_colorspace=_matrix_to_take(own, colours, picture),
            src_color_range=colours.range if colours.range != own.range else None,
        )
        if kind is None:
            image: np.ndarray = shown.to_ndarray()
            return image
        from ego_assets.media.tone import to_bt709

        green, blue, red = (_codes_of(plane) for plane in shown.planes)
        return to_bt709((red, green, blue), kind, colours.gamut)


def _codes_of(plane: Any) -> np.ndarray:
    """(H, W) uint16, where they lie."""
    codes = np.frombuffer(plane, np.dtype("<u2")).reshape(plane.height, -1)
    return codes[:, : plane.width]


def _matrix_to_take(own: Colours, colours: Colours, picture: Any) -> int | None:
    """The matrix to tell libav, whose own guess is BT.601; None: it knows."""
    matrix = colours.matrix
    if picture.format.is_rgb:
        return None
    is_wide = colours.transfer in (PQ, HLG) or colours.primaries == BT2020
    if matrix == BT2020_CONSTANT or (matrix == UNSPECIFIED and is_wide):
        return BT2020  # libav has no other of BT.2020; the two are near each other
    if matrix == UNSPECIFIED:
        matrix = matrix_by_size(picture.width, picture.height)
        if matrix == SMPTE170M and own.matrix == UNSPECIFIED:
            return None
    if matrix == own.matrix:
        return None
    return BT470BG if matrix == SMPTE170M else matrix  # PyAV knows BT.601 by the former only
