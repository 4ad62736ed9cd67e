"""Reads bits of the beginning of a coded unit; zeros behind its end."""

from __future__ import annotations


class Bits:
    """is_escaped: zeros of the unit are followed by bytes that are none of it (H.264, HEVC)."""

    def __init__(self, data: bytes, *, is_escaped: bool = True) -> None:
        data = data.replace(b"\0\0\3", b"\0\0") if is_escaped else data
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The number that the next bits are."""
        self._left -= count
        mask = (1 << count) - 1
        return (self._value >> self._left if self._left >= 0 else 0) & mask

    def golomb(self) -> int:
        """ue(v) of H.264; uvlc() of AV1 is the same."""
        zeros = 0
        while self._left > 0 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros) if zeros < 32 else 0

    def signed_golomb(self) -> int:
        """se(v) of H.264."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)
