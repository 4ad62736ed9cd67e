"""The hand estimator by landmarks: joints that are seen, placed in space, smoothed over time.

Here: the order of the steps, tracks through a clip, rows. Not here: joints in pictures (`measure`,
and the segmenter of the same name), geometry (`space`), what is valid (`validity`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.hands import takes
from ego_assets.hands.landmarks.measure import Measured, measure, measured_by_mask
from ego_assets.hands.landmarks.space import PlacedHand, lengths_of, place, with_lengths
from ego_assets.hands.landmarks.validity import HandFacts, confidence_of, reason_against
from ego_assets.hands.settings import HandPoseSettings
from ego_assets.hands.skeleton import BACKWARD_DEG, finger_flexion_deg, placed_columns
from ego_assets.models.packaged.declaration import HAND_NETS
from ego_assets.models.weights import weights_root
from ego_assets.operator import Carried, ClipInput, ClipOutput, Rows
from ego_assets.vision.smoothing import smoother

_GOOD = 0.8
"""Presence with which a look has a say in the lengths of bones."""
_LASTING_S = 0.2
_BENT_S = 0.3
"""How far off a look may be whose shape another one takes."""
_FALLBACK_M = 0.5
"""Distance of a hand that cannot be placed: its row is not valid."""


@dataclass(frozen=True, eq=False)
class _Moment:
    """A hand in a frame: a row of `hand_masks`, or none where it was not seen for an instant."""

    frame: int
    pts_s: float
    mask: Mapping[str, Any]
    seen: Measured | None


class LandmarksHandEstimator:
    """`hand_masks` → `hand_poses`: metric, since the net knows how large hands are."""

    name = "landmarks"
    version = "6"
    quality_tier = "learned"
    weights_hash = ""

    def __init__(self, settings: HandPoseSettings, root: Path | None = None) -> None:
        """root: the folder of all weights, if not the machine's."""
        self.settings = settings
        self._folder = (root or weights_root()) / HAND_NETS.archive.folder

    @staticmethod
    def check(settings: HandPoseSettings, root: Path) -> str:
        """Read the weights. Raises WeightsError."""
        from ego_assets.models.hand_nets.landmarks import LandmarkNet
        from ego_assets.models.hand_nets.runtime import runtime_here

        LandmarkNet(root / HAND_NETS.archive.folder)
        return f"landmark net, run by {runtime_here()}"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A row per mask row, and one per frame of the short gaps between them."""
        masks = clip.tables["hand_masks"].to_pylist()
        tracks = self._tracks(clip, masks)
        before = carried or {}
        votes = takes.count_votes(masks, clip.first_new_frame, before.get("votes", {}))
        lengths = takes.fixed_shapes(_shapes(tracks, votes), before.get("lengths", {}))
        rows: Rows = []
        for track, moments in sorted(tracks.items()):
            rows.extend(self._rows(clip, moments, np.array(lengths[track])))
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return ClipOutput({"hand_poses": rows}, carried={"votes": votes, "lengths": lengths})

    def _tracks(self, clip: ClipInput, masks: Rows) -> dict[str, list[_Moment]]:
        """What is seen of each track, gaps that are short filled with moments without a look."""
        without = [row for row in masks if measured_by_mask(row) is None]
        looked = measure(without, clip.frames, self._folder, self.settings.side_px)
        tracks: dict[str, list[_Moment]] = {}
        for row in sorted(masks, key=lambda r: (r["track_id"], r["frame_index"])):
            key = row["frame_index"], row["track_id"]
            seen = measured_by_mask(row) or looked.get(key)
            mine = tracks.setdefault(row["track_id"], [])
            if mine:
                mine.extend(self._gap(clip, mine[-1], row))
            mine.append(_Moment(row["frame_index"], row["pts_s"], row, seen))
        return tracks

    def _gap(self, clip: ClipInput, before: _Moment, row: Mapping[str, Any]) -> Iterator[_Moment]:
        """Moments of the frames between two looks at a hand, if they are few."""
        if row["pts_s"] - before.pts_s > self.settings.fill_gap_s:
            return
        for frame in range(before.frame + 1, row["frame_index"]):
            yield _Moment(frame, clip.frames.time_of(frame), before.mask, None)

    def _rows(
        self, clip: ClipInput, moments: Sequence[_Moment], lengths: np.ndarray
    ) -> Iterator[dict[str, Any]]:
        """The rows of a track."""
        seen = [i for i, moment in enumerate(moments) if moment.seen is not None]
        if not seen:
            return
        times = np.array([moment.pts_s for moment in moments])
        looks = [m.seen for m in moments if m.seen is not None]
        points = _interpolated(times, seen, np.stack([look.points for look in looks]))
        metres = np.stack([look.metres for look in looks])
        shapes = _plausibly_bent(times[seen], metres, moments[0].mask["side"])
        hands = _interpolated(times, seen, shapes)
        trusted = np.zeros(len(moments), bool)
        trusted[seen] = [look.presence >= 0.5 for look in looks]
        calm = smoother(times, trusted, self.settings.smoothing_s)
        steady = np.einsum("ij,jkl->ikl", calm, points)
        shaped = with_lengths(np.einsum("ij,jkl->ikl", calm, hands), lengths)
        placed = [place(h, p, clip.intrinsics) for h, p in zip(shaped, steady, strict=True)]
        self._steady_depth(placed, times)
        sure = _lasting_presence(times, [m.seen.presence if m.seen else 0.0 for m in moments])
        for index, moment in enumerate(moments):
            others = np.count_nonzero(calm[index]) > 1
            yield self._row(
                clip,
                moment,
                points[index],
                steady[index],
                shaped[index],
                placed[index],
                is_smoothed=bool(others),
                presence=float(sure[index]),
            )

    def _steady_depth(self, placed: list[PlacedHand | None], times: np.ndarray) -> None:
        """Smooth how far away a hand is: of all that is measured the least sure."""
        known = [i for i, hand in enumerate(placed) if hand is not None]
        if len(known) < 2:
            return
        depths = np.array([np.log(h.joints[:, 2].mean()) for h in placed if h is not None])
        weights = smoother(times[known], np.ones(len(known), bool), self.settings.depth_smoothing_s)
        for index, change in zip(known, weights @ depths - depths, strict=True):
            hand = placed[index]
            assert hand is not None
            middle = hand.joints.mean(axis=0)
            placed[index] = PlacedHand(hand.joints + middle * np.expm1(change), hand.residual)

    def _row(
        self,
        clip: ClipInput,
        moment: _Moment,
        measured: np.ndarray,
        points: np.ndarray,
        hand: np.ndarray,
        placed: PlacedHand | None,
        *,
        is_smoothed: bool,
        presence: float,
    ) -> dict[str, Any]:
        mask = moment.mask
        facts = _facts(clip, moment, measured, points, hand, placed, presence)
        reason = "not measured" if moment.seen is None else reason_against(facts)
        joints = hand + np.array([0, 0, _FALLBACK_M]) if placed is None else placed.joints
        origin = "filled" if moment.seen is None else "smoothed" if is_smoothed else "measured"
        low, high = points.min(axis=0), points.max(axis=0)
        box = mask["box"] if moment.seen is not None else [*low.tolist(), *high.tolist()]
        return clip.row(moment.frame, moment.pts_s) | {
            "track_id": mask["track_id"],
            "side": mask["side"],
            "is_valid": reason is None,
            "is_wearer": mask["is_wearer"],
            "invalid_reason": reason,
            "confidence": 0.0 if moment.seen is None else confidence_of(facts),
            "joints_origin": origin,
            "measured_px": measured.tolist() if origin == "smoothed" else None,
            "joints_px": points.tolist(),
            **placed_columns(joints, mask["side"]),
            "mano_pose": None,
            "mano_betas": None,
            "box": box,
            "score": float(mask["score"]),
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }


def _shapes(
    tracks: Mapping[str, Sequence[_Moment]], votes: Mapping[str, takes.Votes]
) -> Iterator[tuple[str, str, np.ndarray, bool]]:
    """(track, owner, lengths of bones, whether the look is good) of each look."""
    for track, moments in tracks.items():
        owner = takes.owner_of(track, votes[track])
        for moment in moments:
            if moment.seen is not None:
                lengths = lengths_of(moment.seen.metres[None])[0]
                yield track, owner, lengths, moment.seen.presence >= _GOOD


def _lasting_presence(times: np.ndarray, presence: Sequence[float]) -> np.ndarray:
    """(N,) presence of each frame, and no more than on average around it: what is no hand looks
    like one now and then."""
    own = np.array(presence)
    weights = np.exp(-0.5 * ((times[:, None] - times[None]) / _LASTING_S) ** 2)
    return np.asarray(np.minimum(own, weights @ own / weights.sum(axis=1)))


def _plausibly_bent(times: np.ndarray, metres: np.ndarray, side: str) -> np.ndarray:
    """(N, 21, 3) shapes of the looks of a hand. Where fingers bend backward the net has taken them
    for those of the other hand, or is unsure of depth: such a look has the shape of those around it
    that do not. One that has none near keeps its own, and is not valid."""
    flexion, _ = finger_flexion_deg(metres, np.full(len(metres), side == "right"))
    bent = flexion.mean(axis=(1, 2)) >= BACKWARD_DEG
    apart = np.abs(times[:, None] - times[None, bent])
    mended = ~bent & (apart.min(axis=1, initial=np.inf) <= _BENT_S)
    if not mended.any():
        return metres
    near = _interpolated(times, np.flatnonzero(bent).tolist(), metres[bent])
    return np.where(mended[:, None, None], near, metres)


def _interpolated(times: np.ndarray, seen: Sequence[int], values: np.ndarray) -> np.ndarray:
    """(N, ...) values at all times, linear between those that were seen."""
    if len(seen) == len(times):
        return values
    flat = values.reshape(len(seen), -1)
    known = times[list(seen)]
    columns = [np.interp(times, known, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(len(times), *values.shape[1:])


def _facts(
    clip: ClipInput,
    moment: _Moment,
    measured: np.ndarray,
    points: np.ndarray,
    hand: np.ndarray,
    placed: PlacedHand | None,
    presence: float,
) -> HandFacts:
    mask = moment.mask
    size = max(float(np.ptp(measured, axis=0).max()), 1e-6)
    limits = np.array([clip.frames.width, clip.frames.height])
    flexion, _ = finger_flexion_deg(hand[None], np.array([mask["side"] == "right"]))
    inside = ((measured >= 0) & (measured < limits)).all(axis=1).mean()
    side_score = mask["side_score"]
    return HandFacts(
        presence=presence,
        side_score=1.0 if side_score is None else float(side_score),
        score=float(mask["score"]),
        inside=float(inside),
        size_px=size,
        residual=None if placed is None else placed.residual,
        jump=float(np.linalg.norm(measured - points, axis=1).mean()) / size,
        distance_m=0.0 if placed is None else float(np.linalg.norm(placed.joints.mean(axis=0))),
        flexion_deg=float(flexion.mean()),
        is_wearer=bool(mask["is_wearer"]),
    )
