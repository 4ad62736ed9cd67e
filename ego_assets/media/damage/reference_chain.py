"""Says of coded packets, without decoding, whether they are whole and follow one another.

A decoder hides what it lacks: of a picture whose references were lost it makes one from others,
and says nothing. What can be seen in the packets themselves is seen here, for H.264 and HEVC in
MP4 and Matroska (lengths of the units that a packet is made of), and for H.264 everywhere (numbers
of the reference pictures, ITU-T H.264 7.4.3); for AV1 in `av1_order`. Other codecs say too little.

Not here: which pictures a damaged packet takes along (`spoilt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ego_assets.media.damage.av1_order import Av1Order
from ego_assets.media.damage.bits import Bits

_HEAD_BYTES = 24
"""Of a slice: more than its header needs up to the number of the picture."""
_SLICE, _IDR_SLICE, _SPS = 1, 5, 7
_MAX_UNITS = 4096
_NO_UNIT = 4
"""Fewer bytes than this behind the last unit are padding: libav does not look at them."""
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244})
MAX_GAP_SHARE = 0.1
"""Where more packets than this seem to follow lost ones, their numbers mean something else."""


@dataclass(frozen=True)
class _Numbering:
    """How a sequence numbers its reference pictures. bits: of a number; None: gaps are allowed."""

    bits: int | None
    has_planes: bool


def _numbering(sps: bytes) -> _Numbering:
    bits = Bits(sps[1:])
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    has_planes = False
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        has_planes = chroma == 3 and bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    number_bits = bits.golomb() + 4
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.take(1)
        bits.signed_golomb()
        bits.signed_golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.signed_golomb()
    bits.golomb()
    may_skip = bool(bits.take(1))
    return _Numbering(number_bits if number_bits <= 16 and not may_skip else None, has_planes)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last, following = 8, 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


class PacketChain:
    """Watches the packets of a stream in the order in which they are stored."""

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        codec = context.codec.canonical_name
        extra = bytes(context.extradata or b"")
        at = {"h264": 4, "hevc": 21}.get(codec)
        self._prefix = 0
        if at is not None and len(extra) > at and extra[0] == 1:
            self._prefix = (extra[at] & 3) + 1
        self._is_h264 = codec == "h264"
        self._av1 = Av1Order(extra) if codec == "av1" else None
        self._numbering: _Numbering | None = None
        self._last: int | None = None
        self._has_lost_link = False
        self._key_time = 0
        if self._is_h264 and self._prefix and len(extra) > 8:
            size = int.from_bytes(extra[6:8], "big")
            self._numbering = _numbering(extra[8 : 8 + size])

    def is_whole(self, data: bytes) -> bool:
        """Whether a packet is made of whole units, as far as that can be told."""
        if self._av1 is not None:
            return self._av1.is_whole(data)
        if not self._prefix:
            return True
        place, count, prefix = 0, 0, self._prefix
        while len(data) - place >= _NO_UNIT:
            size = int.from_bytes(data[place : place + prefix], "big")
            place += prefix
            if size < 1 or place + size > len(data) or data[place] & 0x80:
                return False
            place += size
            count += 1
            if count > _MAX_UNITS:
                return True
        return True

    def follows(self, data: bytes, is_key: bool, at: int, is_late: bool) -> bool:
        """Whether no reference picture was lost between the packet before and this one.

        at: when it is shown. What is stored behind a keyframe and shown before it refers to what
        lies before the keyframe. is_late: whether time has passed for which there is no packet.
        """
        if self._av1 is not None:
            return self._av1.follows(data, is_key, is_late)
        if not self._is_h264 or (found := self._number(data)) is None:
            return True
        number, is_reference, is_idr, limit = found
        last, self._last = self._last, number if is_reference else self._last
        if is_idr:
            self._has_lost_link = False
            return True
        is_next = last is None or number in (last, (last + 1) % limit)
        # Numbers begin again at 0 where a picture clears all references.
        is_next = is_next or (number <= 1 and not is_late)
        if is_key:
            self._has_lost_link, self._key_time = not is_next, at
            return True
        if at > self._key_time:
            return is_next
        return is_next and not self._has_lost_link

    def _number(self, data: bytes) -> tuple[int, bool, bool, int] | None:
        for unit in self._units(data):
            kind = unit[0] & 31
            if kind == _SPS:
                self._numbering = _numbering(unit)
            elif kind in (_SLICE, _IDR_SLICE):
                numbering = self._numbering
                if numbering is None or numbering.bits is None:
                    return None
                bits = Bits(unit[1:_HEAD_BYTES])
                bits.golomb()
                bits.golomb()
                bits.golomb()
                if numbering.has_planes:
                    bits.take(2)
                number = bits.take(numbering.bits)
                return number, bool(unit[0] & 0x60), kind == _IDR_SLICE, 1 << numbering.bits
        return None

    def _units(self, data: bytes) -> Iterator[bytes]:
        """The beginnings of the units of a packet."""
        if self._prefix:
            place = 0
            while place + self._prefix < len(data):
                size = int.from_bytes(data[place : place + self._prefix], "big")
                place += self._prefix
                if size < 1 or place >= len(data):
                    return
                yield data[place : place + min(size, 256)]
                place += size
            return
        place = data.find(b"\0\0\1")
        while 0 <= place < len(data) - 3:
            yield data[place + 3 : place + 259]
            place = data.find(b"\0\0\1", place + 3)
