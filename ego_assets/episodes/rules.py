"""Which footage may be used, which frames of a take are worth training on, and which rule drops the
others.

Here: the rules, each a mask over frames or of a whole video, and the stretches that they leave. Not
here: where the masks' evidence comes from (`takes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from ego_assets.arrays import runs_of_true
from ego_assets.consent import NO_CONSENTS, items_of
from ego_assets.episodes.settings import EpisodeSettings
from ego_assets.episodes.tables import Bin
from ego_assets.episodes.takes import TakeFrames

_FINGERTIPS_AND_WRIST = [0, 4, 8, 12, 16, 20]
SPEED_WINDOW_S = 0.4
"""A hand's speed is its way over this, which jitter does not add up in."""
NOT_SAID = "nothing is said of it"
_OF_VIDEOS = ("rejected", "no consent", "license", "between clips")
"""Bins that no frame of a take is in."""
TURN_WINDOW_S = 0.1
"""The same of the head's turns."""


@dataclass(frozen=True)
class TakeStretch:
    """Frames first to last (exclusive), counted from the take's first; why: a bin of `footage`;
    valid_hand_share: of frames in which the hands that must be there have valid poses."""

    first: int
    last: int
    why: str
    detail: str | None = None
    valid_hand_share: float = 0.0


def refusal(video: Mapping[str, Any], settings: EpisodeSettings) -> tuple[Bin, str] | None:
    """(bin, detail) of a video that may not be used, by what is said beside it; None: it may.
    video: its row of `video_manifest`."""
    consent, accepted = video["consent"], items_of(settings.accepted_consents)
    is_wanting = settings.require_consent if consent is None else consent not in accepted
    if is_wanting or consent in NO_CONSENTS:
        return "no consent", consent or NOT_SAID
    licenses = items_of(settings.accepted_licenses)
    if licenses and video["license"] not in licenses:
        return "license", video["license"] or NOT_SAID
    return None


def stretches(
    take: TakeFrames, settings: EpisodeSettings, failed: Mapping[str, str]
) -> list[TakeStretch]:
    """Cut a take into stretches without gaps: those that are kept, each an episode, and those that
    a rule drops. failed: {clip: the check that it fails}."""
    is_there, is_good = presence(take, settings)
    names, why = _bins(take, settings, failed, is_there, is_good)
    kept = names.index("kept")
    cuts = _breaks(take)
    for first, last in _runs_of(why, kept, cuts):
        for part in _parts(take, first, last, settings.max_length_s):
            cuts[part[0]] = True
            _settle(take, settings, names, why, part, is_good)
    found: list[TakeStretch] = []
    for first, last in _edges(why, cuts & (why == kept)):
        name = names[why[first]]
        if name == "failed check":
            found.extend(_by_clip(take, first, last, name, failed))
        else:
            share = float(is_good[first:last].mean())
            found.append(TakeStretch(first, last, name, valid_hand_share=share))
    return found


def _parts(take: TakeFrames, first: int, last: int, longest_s: float) -> list[tuple[int, int]]:
    """A run cut into as few parts of equal length as are no longer than that."""
    start, end = take.pts_s[first], take.end_s[last - 1]
    count = max(int(np.ceil((end - start) / longest_s - 1e-9)), 1)
    times = np.linspace(start, end, count + 1)[1:-1]
    inner = first + np.searchsorted(take.pts_s[first:last], times - 1e-9)
    edges = [first, *dict.fromkeys(int(i) for i in inner if first < i < last), last]
    return list(pairwise(edges))


def _bins(
    take: TakeFrames,
    settings: EpisodeSettings,
    failed: Mapping[str, str],
    is_there: np.ndarray,
    is_good: np.ndarray,
) -> tuple[list[str], np.ndarray]:
    """The names of the bins, and (N,) of each frame the first one whose rule drops it. is_there,
    is_good: of `presence`."""
    is_failed = np.array([c in failed for c in take.clip_ids], bool)[take.clip]
    least_hands, least_cameras = settings.min_valid_hand_share, settings.min_valid_camera_share
    names = [name for name in get_args(Bin) if name not in _OF_VIDEOS]
    why = np.full(len(take.pts_s), names.index("kept"))

    def drop(name: str, mask: np.ndarray) -> np.ndarray:
        is_left = why == names.index("kept")
        why[is_left & mask] = names.index(name)
        left: np.ndarray = is_left & ~mask
        return left

    drop("not processed", ~take.is_made)
    drop("damaged", take.is_damaged)
    drop("failed check", is_failed)
    drop("head motion", head_turn_dps(take) > settings.max_head_turn_dps)
    is_left = drop("no hands", ~is_there)
    is_left = drop("few valid hands", _share(take, is_good, is_left, settings) < least_hands)
    few_cameras = _share(take, take.camera.is_valid, is_left, settings) < least_cameras
    drop("few valid cameras", few_cameras)
    drop("idle", idle(take, settings))
    return names, why


def _settle(
    take: TakeFrames,
    settings: EpisodeSettings,
    names: list[str],
    why: np.ndarray,
    run: tuple[int, int],
    is_good: np.ndarray,
) -> None:
    """Drop a whole stretch that is too short, or in which a share is too small after all: windows
    reach beyond its ends."""
    first, last = run
    here = slice(first, last)
    if take.end_s[last - 1] - take.pts_s[first] < settings.min_length_s - 1e-6:
        why[here] = names.index("too short")
    elif is_good[here].mean() < settings.min_valid_hand_share:
        why[here] = names.index("few valid hands")
    elif take.camera.is_valid[here].mean() < settings.min_valid_camera_share:
        why[here] = names.index("few valid cameras")


def presence(take: TakeFrames, settings: EpisodeSettings) -> tuple[np.ndarray, np.ndarray]:
    """((N,) the hands that must be there are, or are away for a moment only; (N,) they are
    valid)."""
    seen = np.stack([h.is_seen for h in take.hands.values()])
    valid = np.stack([h.is_valid for h in take.hands.values()])
    enough = np.all if settings.hands == "both" else np.any
    is_there: np.ndarray = np.array(enough(seen, axis=0), bool)
    for first, last in runs_of_true(~is_there):
        inside = first > 0 and last < len(is_there)
        if inside and take.pts_s[last] - take.pts_s[first] <= settings.max_hand_gap_s:
            is_there[first:last] = True
    return is_there, np.array(enough(valid, axis=0), bool)


def head_turn_dps(take: TakeFrames) -> np.ndarray:
    """(N,) how fast the camera turns, in degrees a second; 0 where it is not known."""
    steps = max(round(TURN_WINDOW_S / max(take.step_s, 1e-3)), 1)
    turn = np.zeros(len(take.pts_s))
    if len(turn) <= steps:
        return turn
    first, last = take.camera.xyzw[:-steps], take.camera.xyzw[steps:]
    same = take.camera.world[:-steps] == take.camera.world[steps:]
    cosine = np.clip(np.abs((first * last).sum(axis=1)), 0.0, 1.0)
    angle = np.degrees(2 * np.arccos(cosine)) / (take.pts_s[steps:] - take.pts_s[:-steps])
    angle = np.where(same & np.isfinite(angle), angle, 0.0)
    for offset in range(steps + 1):  # of all frames of the turn
        part = turn[offset : offset + len(angle)]
        np.maximum(part, angle, out=part)
    return turn


def hand_speed_mps(take: TakeFrames) -> np.ndarray:
    """(N,) how fast the fastest wrist or fingertip of the wearer is; NaN where none is known.

    In the world where it is in metres, else in the camera frame. Ways along the line of sight,
    which are mostly noise of the estimated distance, do not count.
    """
    half = max(round(SPEED_WINDOW_S / 2 / max(take.step_s, 1e-3)), 1)
    at = np.arange(len(take.pts_s))
    ends = np.maximum(at - half, 0), np.minimum(at + half, len(at) - 1)
    seconds = np.maximum(take.pts_s[ends[1]] - take.pts_s[ends[0]], 1e-3)
    fastest = np.full(len(at), np.nan)
    for hand in take.hands.values():
        points = hand.joints_m[:, _FINGERTIPS_AND_WRIST]
        first = points[ends[0]]
        way = _way_in_world(take, points, *ends)
        way = np.where(np.isfinite(way), way, points[ends[1]] - first)
        sight = first / np.linalg.norm(first, axis=2, keepdims=True)
        across = way - (way * sight).sum(axis=2, keepdims=True) * sight
        np.fmax(fastest, np.linalg.norm(across, axis=2).max(axis=1) / seconds, out=fastest)
    return fastest


def _way_in_world(
    take: TakeFrames, points: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """(N, P, 3) ways of points in the world from frames `first` to `last`, (N,) each, in the axes
    of the camera where they begin; NaN where the camera is not known in metres."""
    from scipy.spatial.transform import Rotation

    camera = take.camera
    way = np.full((len(first), *points.shape[1:]), np.nan)
    known = camera.is_metric[first] & camera.is_metric[last]
    known &= camera.world[first] == camera.world[last]
    if known.any():
        a, b = first[known], last[known]
        back = Rotation.from_quat(camera.xyzw[a]).inv()
        turn = (back * Rotation.from_quat(camera.xyzw[b])).as_matrix()
        shift = back.apply(camera.position[b] - camera.position[a])
        way[known] = np.einsum("nij,npj->npi", turn, points[b]) + shift[:, None] - points[a]
    return way


def idle(take: TakeFrames, settings: EpisodeSettings) -> np.ndarray:
    """(N,) nothing moves, and for so long that it is no pause."""
    speed = hand_speed_mps(take)
    is_still = speed < settings.min_hand_speed_mps
    for first, last in runs_of_true(np.isnan(speed)):  # an odd pose that is not valid is no motion
        inside = first > 0 and last < len(speed)
        if inside and take.pts_s[last] - take.pts_s[first] <= settings.max_hand_gap_s:
            is_still[first:last] = is_still[first - 1] and is_still[last]
    is_still &= ~take.is_active
    for first, last in runs_of_true(is_still):
        if take.end_s[last - 1] - take.pts_s[first] <= settings.max_idle_s:
            is_still[first:last] = False
    still: np.ndarray = is_still
    return still


def _share(
    take: TakeFrames, mask: np.ndarray, is_left: np.ndarray, settings: EpisodeSettings
) -> np.ndarray:
    """(N,) share of frames of a mask in the window around each, which ends where what is left
    ends; 1 of frames that are not left."""
    half = max(round(settings.share_window_s / max(take.step_s, 1e-3)) // 2, 0)
    total = np.concatenate([[0], np.cumsum(mask)])
    shares = np.ones(len(mask))
    for first, last in runs_of_true(is_left):
        at = np.arange(first, last)
        low, high = np.maximum(at - half, first), np.minimum(at + half + 1, last)
        shares[first:last] = (total[high] - total[low]) / (high - low)
    return shares


def _breaks(take: TakeFrames) -> np.ndarray:
    """(N,) a frame is in another world than the last one before that is in any."""
    world = take.camera.world
    known = np.flatnonzero(world >= 0)
    breaks = np.zeros(len(world), bool)
    breaks[known[1:][world[known][1:] != world[known][:-1]]] = True
    return breaks


def _edges(values: np.ndarray, breaks: np.ndarray) -> list[tuple[int, int]]:
    """(first, one past the last) of each run of one value; a break begins another one."""
    changes = breaks.copy()
    changes[1:] |= values[1:] != values[:-1]
    cuts = [0, *(int(i) for i in np.flatnonzero(changes) if i), len(values)]
    return [(a, b) for a, b in pairwise(cuts) if b > a]


def _runs_of(values: np.ndarray, value: int, breaks: np.ndarray) -> list[tuple[int, int]]:
    return [(a, b) for a, b in _edges(values, breaks & (values == value)) if values[a] == value]


def _by_clip(
    take: TakeFrames, first: int, last: int, name: str, failed: Mapping[str, str]
) -> Iterator[TakeStretch]:
    """A stretch that checks drop, clip by clip."""
    for a, b in _edges(take.clip[first:last], np.zeros(last - first, bool)):
        clip = take.clip_ids[take.clip[first + a]]
        yield TakeStretch(first + a, first + b, name, failed[clip])
