"""The segmenter by landmarks: hands by two small networks, objects by what hands hold.

Here: the order of the steps, and the rows. Not here: how hands are found (`scan`, `follow`), drawn
(`shape`) and told apart (`persons`); objects (`moved`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ego_assets.masks.landmarks import carry
from ego_assets.masks.landmarks.follow import HandFollower, HandTrack
from ego_assets.masks.landmarks.link import linked, without_doubles
from ego_assets.masks.landmarks.persons import Hand, PictureView, persons_hands
from ego_assets.masks.landmarks.scan import HandScan
from ego_assets.masks.moved.holds import HandPath
from ego_assets.masks.moved.objects import ObjectLook
from ego_assets.masks.moved.rows import hold_rows, mask_columns, object_rows
from ego_assets.masks.settings import SegmentSettings
from ego_assets.models.packaged.declaration import HAND_NETS
from ego_assets.models.weights import weights_root
from ego_assets.operator import Carried, ClipInput, ClipOutput, Frame, Rows
from ego_assets.vision.mask_scaling import encode_enlarged
from ego_assets.vision.threads import side_by_side

MIN_FRAMES, MIN_MEAN_PRESENCE = 3, 0.6
"""Of a track that is a hand."""
_LIFELESS = 0.4
"""What is left of the score of a hand that is as grey as a robot's, a statue's or a drawing."""


class LandmarksSegmenter:
    """`detections`, `object_masks` and `hand_masks` from one look at the frames of a clip."""

    name = "landmarks"
    version = "6"
    quality_tier = "learned"
    weights_hash = ""

    def __init__(self, settings: SegmentSettings, root: Path | None = None) -> None:
        """root: the folder of all weights, if not the machine's."""
        self.settings = settings
        self._scan = HandScan((root or weights_root()) / HAND_NETS.archive.folder)

    @staticmethod
    def check(settings: SegmentSettings, root: Path) -> str:
        """Read the weights. Raises WeightsError."""
        from ego_assets.models.hand_nets.runtime import runtime_here

        HandScan(root / HAND_NETS.archive.folder)
        return f"palm and landmark nets, run by {runtime_here()}"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A clip in which nothing is found gives no rows."""
        before = carried or {}
        follower = HandFollower(self._scan, self.settings.scan_interval_s)
        seen = ObjectLook(self.settings)
        shown: list[Frame] = []
        with side_by_side():
            for frame in clip.frames.read(max_side_px=self.settings.hand_side_px):
                follower.see(frame)
                seen.see(frame)
                shown = [frame]
        size = shown[0].image.shape
        pieces = [track for track in follower.tracks if _is_hand(track, len(seen.pts_s))]
        tracks = linked(without_doubles(pieces))
        view = PictureView(size[1], size[0], clip.intrinsics.fx * shown[0].scale)
        hands = self._hands(tracks, view, before, clip.first_track_number)
        paths = [_path_of(hand) for hand in hands]
        things, holds, state = seen.find(paths, before, clip.first_track_number)
        found = self._detections(clip, tracks, shown[0].scale, seen.pts_s)
        found += hold_rows(clip, holds, seen.shape, seen.pts_s)
        rows = {
            "hand_masks": self._hand_rows(clip, hands, shown[0].scale, seen.pts_s),
            "object_masks": object_rows(clip, things, seen.pts_s),
            "detections": _numbered(found),
        }
        state |= carry.carried_hands(hands, seen.pts_s, clip.first_track_number, before)
        notes = {"hand tracks": len(hands), "object tracks": len(things)}
        return ClipOutput(rows, carried=state, notes=notes)

    def _hands(
        self, tracks: list[HandTrack], view: PictureView, before: Carried, first: int
    ) -> list[Hand]:
        known = carry.known_hands(before, tracks)
        hands = persons_hands(
            tracks,
            view,
            {key: hand.votes for key, hand in known.items()},
            {key: hand.side for key, hand in known.items()},
        )
        carry.name_hands(hands, known, before, first)
        return hands

    # -- rows ----------------------------------------------------------------------------------

    def _hand_rows(
        self, clip: ClipInput, hands: list[Hand], scale: float, pts_s: dict[int, float]
    ) -> Rows:
        rows = []
        take = clip.clip["take_id"]
        height, width = clip.frames.height, clip.frames.width
        for hand in hands:
            flesh = _LIFELESS + (1 - _LIFELESS) * hand.skin
            for frame, look in sorted(hand.looks.items()):
                coded = encode_enlarged(hand.drawn[frame].mask.whole(), height, width)
                if coded is None:
                    continue
                points = (look.points + 0.5) / scale - 0.5
                rows.append(
                    clip.row(frame, pts_s[frame])
                    | {
                        "track_id": f"{take}-h{hand.number:03d}",
                        "label": "hand",
                        "score": float(np.clip(look.presence * flesh, 0, 1)),
                        **mask_columns(coded, height, width),
                        "side": hand.side,
                        "is_wearer": hand.is_wearer,
                        "keypoints_px": points.tolist(),
                        "keypoints_hand_m": look.metres.tolist(),
                        "presence": float(np.clip(look.presence, 0, 1)),
                        "side_score": hand.side_score,
                        "backend": self.name,
                        "quality_tier": self.quality_tier,
                    }
                )
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return rows

    def _detections(
        self, clip: ClipInput, tracks: list[HandTrack], scale: float, pts_s: dict[int, float]
    ) -> Rows:
        rows = []
        for track in tracks:
            for frame, look in track.looks.items():
                low, high = look.points.min(axis=0), look.points.max(axis=0)
                rows.append(
                    clip.row(frame, pts_s[frame])
                    | {
                        "label": "hand",
                        "side": "right" if look.right > 0.5 else "left",
                        "score": float(np.clip(look.presence, 0, 1)),
                        "box": [float(v) for v in np.concatenate([low, high]) / scale],
                        "backend": self.name,
                        "quality_tier": self.quality_tier,
                    }
                )
        return rows


def _path_of(hand: Hand) -> HandPath:
    return HandPath(
        {frame: drawn.mask for frame, drawn in hand.drawn.items()},
        {frame: look.points for frame, look in hand.looks.items()},
    )


def _numbered(rows: Rows) -> Rows:
    """Rows of `detections` in the order of frames, each with its number there."""
    rows = sorted(rows, key=lambda row: row["frame_index"])
    count: Counter[int] = Counter()
    for row in rows:
        row["detection_index"] = count[row["frame_index"]]
        count[row["frame_index"]] += 1
    return rows


def _is_hand(track: HandTrack, frames: int) -> bool:
    """Whether a track lasts long enough, and the net is sure of it on average."""
    presence = [look.presence for look in track.looks.values()]
    return len(presence) >= min(MIN_FRAMES, frames) and bool(np.mean(presence) >= MIN_MEAN_PRESENCE)
