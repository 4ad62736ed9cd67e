"""Says of AV1's packets, without decoding, whether they are whole and none is missing between them.

A picture says where it is in the order of those that are shown (`order_hint`, AV1 specification
5.9.2). A decoder does not care: it predicts from whatever lies in the slot that a picture refers
to. Not here: other codecs (`reference_chain`), what a missing packet takes along (`spoilt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ego_assets.media.damage.bits import Bits

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_HEAD_BYTES = 64
"""Of a unit: more than is read of it."""
_SLOTS = 8
_AS_CODED = 2
"""Of a tool: each picture says whether it is used."""


@dataclass(frozen=True)
class _Sequence:
    """What is needed of a sequence header to read those of pictures. hint_bits, id_bits: of an
    `order_hint` and of a picture's number; 0: there is none."""

    hint_bits: int
    id_bits: int
    screen_tools: int
    integer_mv: int


def _sequence(data: bytes) -> _Sequence | None:
    """None: pictures of this kind are not followed."""
    bits = Bits(data, is_escaped=False)
    bits.take(4)
    if bits.take(1):  # a still picture
        return None
    if bits.take(1):  # pictures may say when they are decoded, among what is read of them
        bits.take(64)
        if bits.take(1):
            bits.golomb()
        if bits.take(1):
            return None
    has_delay = bits.take(1)
    if bits.take(5):  # coded in layers: a server that passes them on may have left some out
        return None
    bits.take(12)
    if bits.take(5) > 7:
        bits.take(1)
    if has_delay and bits.take(1):
        bits.take(4)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width + height)
    id_bits = bits.take(4) + 2 + bits.take(3) + 1 if bits.take(1) else 0
    bits.take(3 + 4)
    has_hints = bits.take(1)
    if has_hints:
        bits.take(2)
    screen_tools = _AS_CODED if bits.take(1) else bits.take(1)
    integer_mv = _AS_CODED
    if screen_tools:
        integer_mv = _AS_CODED if bits.take(1) else bits.take(1)
    return _Sequence(bits.take(3) + 1, id_bits, screen_tools, integer_mv) if has_hints else None


class Av1Order:
    """Watches the packets of an AV1 stream as they are stored. extra: of its codec (`av1C`)."""

    def __init__(self, extra: bytes) -> None:
        self._sequence: _Sequence | None = None
        self._hints: list[int | None] = [None] * _SLOTS
        self._last: int | None = None
        for kind, unit in _units(extra[4:]):
            if kind == _SEQUENCE:
                self._sequence = _sequence(unit)

    @staticmethod
    def is_whole(data: bytes) -> bool:
        """Whether a packet is made of whole units."""
        place = 0
        for _, unit in _units(data):
            place = unit.end
        return place == len(data)

    def follows(self, data: bytes, is_key: bool, is_late: bool) -> bool:
        """Whether no picture was lost between the packet before and this one.

        is_late: whether time has passed for which there is no packet. Without that, a jump is taken
        for the way in which an encoder counts.
        """
        before = None if is_key else self._last
        for kind, unit in _units(data):
            if kind == _SEQUENCE:
                self._sequence = _sequence(unit)
            elif kind in (_FRAME, _FRAME_HEADER) and self._sequence is not None:
                self._read(unit, self._sequence)
        now, sequence = self._last, self._sequence
        if not is_late or before is None or now is None or sequence is None:
            return True
        return (now - before) % (1 << sequence.hint_bits) <= 1

    def _read(self, unit: bytes, sequence: _Sequence) -> None:
        """Take note of which picture is shown, and which slots it is kept in."""
        bits = Bits(unit, is_escaped=False)
        if bits.take(1):
            self._last = self._hints[bits.take(3)]
            return
        kind, is_shown = bits.take(2), bits.take(1)
        if not is_shown:
            bits.take(1)
        is_new = kind == _KEY and bool(is_shown)
        is_resilient = kind == _SWITCH or is_new or bool(bits.take(1))
        bits.take(1)
        tools = bits.take(1) if sequence.screen_tools == _AS_CODED else sequence.screen_tools
        if tools and sequence.integer_mv == _AS_CODED:
            bits.take(1)
        bits.take(sequence.id_bits)
        if kind != _SWITCH:
            bits.take(1)
        hint = bits.take(sequence.hint_bits)
        if not (kind in (_KEY, _INTRA_ONLY) or is_resilient):
            bits.take(3)
        kept = 255 if kind == _SWITCH or is_new else bits.take(8)
        for slot in range(_SLOTS):
            if kept >> slot & 1:
                self._hints[slot] = hint
        if is_shown:
            self._last = hint


class _Unit(bytes):
    """The beginning of a unit's payload; end: its place in the packet."""

    end: int


def _units(data: bytes) -> Iterator[tuple[int, _Unit]]:
    """(type, payload) of the units of a packet, as far as they are whole."""
    place = 0
    while place < len(data):
        head = data[place]
        place += 2 if head & 4 else 1
        size = len(data) - place
        if head & 2:
            size, place = _leb128(data, place)
        if head & 0x80 or size < 0 or place + size > len(data):
            return
        unit = _Unit(data[place : place + min(size, _HEAD_BYTES)])
        place += size
        unit.end = place
        yield head >> 3 & 15, unit


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """(the number at a place, the place behind it); below 0: there is none."""
    value = 0
    for count in range(8):
        if place >= len(data):
            return -1, place
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << 7 * count
        if not byte & 0x80:
            return value, place
    return -1, place
