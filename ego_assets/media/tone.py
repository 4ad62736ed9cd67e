"""Maps pictures of PQ, HLG or wide primaries to BT.709, by tables and one matrix.

1. Light of the display, in units of HDR reference white (203 cd/m², ITU-R BT.2408): for PQ by the
   EOTF of SMPTE ST 2084; for HLG by the inverse OETF of ITU-R BT.2100 and a system gamma of 1.2 (a
   display of 1000 cd/m²) on each channel; for standard range by BT.1886.
2. Primaries of BT.2020 (ITU-R BT.2087) or Display P3 to those of BT.709; light outside BT.709's
   gamut is clipped.
3. The EETF of ITU-R BT.2390 on each channel: highlights up to 1000 cd/m² are rolled off, with
   reference white at 90 %, and what is darker than 93 cd/m² keeps its light. Standard range: none.
4. The inverse of BT.1886 (gamma 2.4), to 8 bits.

HLG's gamma is applied to each channel as a camera and a display of standard range do it together,
so that the colours are those of a recording in standard range. BT.2100 applies it to luminance,
which would leave saturated colours less saturated than that.

Nothing adapts to a picture or to metadata: equal values come out equal in every frame and file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ego_assets.media.colour import BT709, BT2020, P3_D65

REFERENCE_WHITE, PEAK = 203.0, 1000.0
"""cd/m²."""
HLG_GAMMA, DISPLAY_GAMMA = 1.2, 2.4
TO_BT709 = {
    BT709: np.eye(3),
    BT2020: np.array(
        [
            [1.660491, -0.587641, -0.072850],
            [-0.124550, 1.132900, -0.008349],
            [-0.018151, -0.100579, 1.118730],
        ]
    ),
    P3_D65: np.array(
        [
            [1.224940, -0.224940, 0.000000],
            [-0.042057, 1.042057, 0.000000],
            [-0.019638, -0.078636, 1.098274],
        ]
    ),
}
"""Of linear light, by primaries."""
_CODES = np.arange(65536) / 65535
_TOP = PEAK / REFERENCE_WHITE
"""Light that comes out white; more is clipped."""
_SQUARED_STEPS = {p: (m * 65535**2 / _TOP).astype(np.float32) for p, m in TO_BT709.items()}
"""From light to the squares of the steps that it is coded by."""
_SHARED, _MAX_THREADS = 3_000_000, 4
"""Values of a picture from which on several threads share it, and how many do at most."""
_ROWS = 16
"""Done at a time, so that what is between the steps stays in the processor's cache."""


def to_bt709(planes: Sequence[np.ndarray], kind: str, gamut: int) -> np.ndarray:
    """Return (H, W, 3) uint8 of planes of codes: red, green and blue, (H, W) uint16 each.

    kind: pq, hlg, or wide for standard range; gamut: their primaries, a key of `TO_BT709`.

    OpenCV does it where it is installed, and numpy otherwise, to within a level.
    """
    out = np.empty((*planes[0].shape, 3), np.uint8)
    by = _by_numpy if _opencv() is None else _by_opencv

    def rows(part: slice) -> None:
        by([p[part] for p in planes], *_tables(kind), _SQUARED_STEPS[gamut], out[part])

    count = _threads_for(out.size)
    if count == 1:
        rows(slice(None))
    else:
        ends = np.linspace(0, len(out), count + 1).astype(int).tolist()
        for _ in _pool(count).map(rows, map(slice, ends, ends[1:])):
            pass
    return out


def _threads_for(values: int) -> int:
    """How many of this process's threads share a picture: one has a small one."""
    if values < _SHARED or _opencv() is None:
        return 1
    from ego_assets.vision.threads import allowed_threads

    return min(allowed_threads(), _MAX_THREADS)


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads of its own: those of operators may be what waits for a picture."""
    return ThreadPoolExecutor(count, thread_name_prefix="tone")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads


@cache
def _opencv() -> Any | None:
    """OpenCV, if it is there and has tables of 16 bits; reading a lake does without."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2 if int(cv2.__version__.split(".")[0]) >= 5 else None


def _by_opencv(
    planes: Sequence[np.ndarray],
    light: np.ndarray,
    coded: np.ndarray,
    mix: np.ndarray,
    out: np.ndarray,
) -> None:
    cv2: Any = _opencv()
    linear, mixed = np.empty((2, _ROWS, *out.shape[1:]), np.float32)
    codes, steps = np.empty((2, *linear.shape), np.uint16)
    for top in range(0, len(out), _ROWS):
        parts = [plane[top : top + _ROWS] for plane in planes]
        rows = len(parts[0])
        cv2.merge(parts, dst=codes[:rows])
        cv2.LUT(codes[:rows], light, dst=linear[:rows])
        cv2.transform(linear[:rows], mix, dst=mixed[:rows])
        cv2.max(mixed[:rows], 0, dst=mixed[:rows])
        cv2.sqrt(mixed[:rows], dst=mixed[:rows])
        cv2.add(mixed[:rows], 0.0, dst=steps[:rows], dtype=cv2.CV_16U)  # rounds, the fastest way
        cv2.LUT(steps[:rows], coded, dst=out[top : top + rows])


def _by_numpy(
    planes: Sequence[np.ndarray],
    light: np.ndarray,
    coded: np.ndarray,
    mix: np.ndarray,
    out: np.ndarray,
) -> None:
    for top in range(0, len(out), _ROWS):
        codes = np.stack([plane[top : top + _ROWS] for plane in planes], axis=-1)
        mixed = light[codes] @ mix.T
        steps = np.rint(np.minimum(np.sqrt(np.maximum(mixed, 0)), 65535))
        out[top : top + _ROWS] = coded[steps.astype(np.uint16)]


@lru_cache(maxsize=3)
def _tables(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Light of each code, over reference white; 8-bit code of each step of the root of light."""
    light = {"pq": pq_light, "hlg": hlg_light, "wide": sdr_light}[kind](_CODES) / REFERENCE_WHITE
    out = _CODES**2 * _TOP
    if kind != "wide":
        out = roll_off(out * REFERENCE_WHITE) / REFERENCE_WHITE
    coded = 255 * np.clip(out, 0, 1) ** (1 / DISPLAY_GAMMA)
    return light.astype(np.float32), np.rint(coded).astype(np.uint8)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_light(code: np.ndarray) -> np.ndarray:
    """Light in cd/m² of PQ codes of 0 to 1 (the EOTF of ST 2084)."""
    power = code ** (1 / _M2)
    light: np.ndarray = 1e4 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
    return light


def pq_code(light: np.ndarray) -> np.ndarray:
    """PQ codes of light in cd/m²."""
    power = (light / 1e4) ** _M1
    code: np.ndarray = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return code


def hlg_light(code: np.ndarray) -> np.ndarray:
    """Light in cd/m² of HLG codes of 0 to 1, on a display of 1000 cd/m²."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    light: np.ndarray = PEAK * scene**HLG_GAMMA
    return light


def sdr_light(code: np.ndarray) -> np.ndarray:
    """Light in cd/m² of codes of standard range, white at reference white (BT.1886)."""
    light: np.ndarray = REFERENCE_WHITE * code**DISPLAY_GAMMA
    return light


def roll_off(light: np.ndarray) -> np.ndarray:
    """Light up to `PEAK` brought below `REFERENCE_WHITE`: the EETF of BT.2390, black at 0."""
    peak = pq_code(np.array(PEAK))
    code = np.minimum(pq_code(light) / peak, 1)
    top = pq_code(np.array(REFERENCE_WHITE)) / peak
    knee = 1.5 * top - 0.5
    t = np.maximum((code - knee) / (1 - knee), 0)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * top
    )
    return pq_light(np.where(code < knee, code, curve) * peak)
