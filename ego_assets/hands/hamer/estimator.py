"""HaMeR 3D hands (Pavlakos et al., "Reconstructing Hands in 3D with Transformers", CVPR 2024).

Here: takes and rows. Not here: the network and its files (`network`, `checkpoint`), crops and their
cameras (`crops`), the MANO hand (`mano`), where hands are (`hand_masks`), smoothing (`smoothing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.hands.hamer.checkpoint import read_checkpoint
from ego_assets.hands.hamer.crops import Crop, hand_box
from ego_assets.hands.hamer.network import HamerNetwork
from ego_assets.hands.mano import ManoHand, read_mano
from ego_assets.hands.settings import HamerSettings
from ego_assets.hands.skeleton import placed_columns
from ego_assets.hands.takes import bones_m, count_votes, fixed_shapes, owner_of, side_of
from ego_assets.models.batching import MicroBatcher
from ego_assets.models.device import pick_device, to_device, to_host
from ego_assets.models.memory import ElasticBatch
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.vision.cameras import project_points
from ego_assets.vision.rle import decode_crop
from ego_assets.vision.smoothing import smoothed_rotations, smoother

MANO = "data/mano/MANO_RIGHT.pkl"
BATCH = 32
"""Crops at once, where neither the settings nor a measurement say."""

MIN_DEPTH_M = 1e-3
POSES_AT_ONCE = 256


@dataclass(frozen=True)
class HandPrediction:
    """What the network says of one hand in one frame; arrays as of `HamerNetwork`, one hand's."""

    mask: dict[str, Any]
    crop: Crop
    rotations: np.ndarray
    betas: np.ndarray
    camera: np.ndarray


class HamerEstimator:
    """`hand_masks` and frames → `hand_poses`: a look at each hand, and then at all of its track.

    Through a take a track's side is what most of its masks say, the bones of the wearer's hands
    (and of each other hand) keep their lengths, and poses are smoothed over time.
    """

    name = "hamer"
    version = "5"
    quality_tier = "reference"
    weights_hash = ""
    on_device = True
    lanes = 4

    def __init__(self, settings: HamerSettings, weights: Path) -> None:
        import torch

        folder = weights / settings.checkpoint
        self.settings = settings
        self.batch = batch = settings.crops_per_batch or BATCH
        elastic = ElasticBatch(self._look, batch)
        self.look = MicroBatcher(elastic, batch)
        self.device = pick_device()
        shape, tensors = read_checkpoint(folder)
        self.network = HamerNetwork(
            shape, tensors, self.device, settings.compile, lambda: elastic.limit
        )
        self.constants = [torch.tensor(v, device=self.device) for v in (shape.mean, shape.std)]
        self.mano = ManoHand.of(read_mano(folder / MANO), self.device)

    @staticmethod
    def check(settings: HamerSettings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        folder = weights / settings.checkpoint
        _, tensors = read_checkpoint(folder)
        read_mano(folder / MANO)
        return f"HaMeR of {sum(t.numel() for t in tensors.values()) / 1e6:.1f} M parameters, MANO"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """One row per mask row. Carried over: sides and shapes."""
        masks = clip.tables["hand_masks"].to_pylist()
        known = carried or {}
        votes = count_votes(masks, clip.first_new_frame, known.get("votes", {}))
        tracks: dict[str, list[HandPrediction]] = {}
        for look in self._looks(clip, masks, votes):
            tracks.setdefault(look.mask["track_id"], []).append(look)
        joints = {t: self._joints_of(clip, looks) for t, looks in tracks.items()}
        seen = [
            (track, owner_of(track, votes[track]), look.betas, _reason(clip, look, hand) is None)
            for track, looks in tracks.items()
            for look, hand in zip(looks, joints[track], strict=True)
        ]
        shapes = fixed_shapes(seen, known.get("shapes", {}))
        rows: list[dict[str, Any]] = []
        for track, looks in tracks.items():
            rows.extend(self._track(clip, looks, joints[track], np.array(shapes[track])))
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return ClipOutput({"hand_poses": rows}, carried={"votes": votes, "shapes": shapes})

    def _looks(
        self, clip: ClipInput, masks: list[dict[str, Any]], votes: dict[str, dict[str, float]]
    ) -> Iterator[HandPrediction]:
        held: list[tuple[dict[str, Any], Crop, np.ndarray]] = []
        for one in self._crops(clip, masks, votes):
            held.append(one)
            if len(held) == self.batch:
                yield from self._looked(held)
                held = []
        if held:
            yield from self._looked(held)

    def _looked(
        self, held: list[tuple[dict[str, Any], Crop, np.ndarray]]
    ) -> Iterator[HandPrediction]:
        found = self.look([picture for _, _, picture in held])
        for (mask, crop, _), values in zip(held, found, strict=True):
            yield HandPrediction(mask, crop, *values)

    def _crops(
        self, clip: ClipInput, masks: list[dict[str, Any]], votes: dict[str, dict[str, float]]
    ) -> Iterator[tuple[dict[str, Any], Crop, np.ndarray]]:
        frames: dict[int, list[dict[str, Any]]] = {}
        for row in masks:
            frames.setdefault(row["frame_index"], []).append(row)
        shown = clip.frames.read(indices=sorted(frames)) if frames else ()
        for frame in shown:
            for row in sorted(frames[frame.index], key=lambda r: r["track_id"]):
                side = side_of(votes[row["track_id"]])
                mask = decode_crop(row.pop("rle"), row["height_px"], row["width_px"])
                crop = Crop.around(hand_box(mask) or row["box"], side == "left")
                yield row | {"side": side}, crop, crop.cut(frame.image, self.network.shape.side)

    def _look(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """(rotations, betas, camera) of each crop, those of several clips at a time."""

        mean, std = self.constants
        pixels = to_device(np.stack(pictures), self.device)
        crops = ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)
        values = to_host(*self.network(crops))
        return list(zip(*(v.astype(np.float64) for v in values), strict=True))

    def try_batch(self, count: int) -> None:
        """Look at so many black crops, to see what memory that takes."""
        side = self.network.shape.side
        self._look([np.zeros((side, side, 3), np.uint8)] * count)

    def _pose(self, rotations: np.ndarray, betas: np.ndarray, is_left: bool) -> np.ndarray:
        """(N, 21, 3) joints in MANO's frame, metres, of (N, 16, 3, 3) and (N, 10)."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(rotations), POSES_AT_ONCE):
                part = slice(start, start + POSES_AT_ONCE)
                values = (
                    torch.as_tensor(v[part], dtype=torch.float32, device=self.device)
                    for v in (rotations, betas)
                )
                found.append(self.mano.pose(*values)[1].cpu().numpy().astype(np.float64))
        return np.concatenate(found) * ((-1 if is_left else 1), 1, 1)

    def _joints_of(self, clip: ClipInput, looks: list[HandPrediction]) -> np.ndarray:
        """(N, 21, 3) joints in the camera, metres, frame by frame as the network has them."""
        rotations, betas = (
            np.stack([getattr(x, n) for x in looks]) for n in ("rotations", "betas")
        )
        moves = np.stack([x.crop.translation(x.camera, clip.intrinsics) for x in looks])
        joints: np.ndarray = self._pose(rotations, betas, looks[0].crop.is_left) + moves[:, None]
        return joints

    def _track(
        self, clip: ClipInput, looks: list[HandPrediction], joints: np.ndarray, betas: np.ndarray
    ) -> Iterator[dict[str, Any]]:
        """Rows of a track, whose bones have the lengths of `betas` (10,)."""
        times = np.array([x.mask["pts_s"] for x in looks])
        reasons = [_reason(clip, x, j) for x, j in zip(looks, joints, strict=True)]
        trusted = np.array([r is None for r in reasons])
        weights = smoother(times, trusted, self.settings.smoothing_s)
        rotations = smoothed_rotations(weights, np.stack([x.rotations for x in looks]))
        posed = self._pose(rotations, np.tile(betas, (len(looks), 1)), looks[0].crop.is_left)
        # A hand that is larger than the network thought looks the same from further away.
        wrists = joints[:, 0] * (bones_m(posed) / bones_m(joints))[:, None]
        wrists[:, 2] = np.maximum(wrists[:, 2], MIN_DEPTH_M)
        depths = np.log(wrists[:, 2])
        deep = smoother(times, trusted, self.settings.depth_smoothing_s)
        flat = np.column_stack([weights @ (wrists[:, :2] / wrists[:, 2:]), np.ones(len(looks))])
        placed = posed - posed[:, :1] + (flat * np.exp(deep @ depths)[:, None])[:, None]
        for look, turns, hand, reason in zip(looks, rotations, placed, reasons, strict=True):
            yield self._row(clip, look, turns, betas, hand, reason)

    def _row(
        self,
        clip: ClipInput,
        look: HandPrediction,
        rotations: np.ndarray,
        betas: np.ndarray,
        joints: np.ndarray,
        reason: str | None,
    ) -> dict[str, Any]:
        from scipy.spatial.transform import Rotation

        mask = look.mask
        pose = Rotation.from_matrix(rotations).as_rotvec()
        if look.crop.is_left:
            pose = pose * (1, -1, -1)
        reason = reason or _reason(clip, look, joints)
        return clip.row(mask["frame_index"], mask["pts_s"]) | {
            "track_id": mask["track_id"],
            "side": mask["side"],
            "is_valid": reason is None,
            "invalid_reason": reason,
            "is_wearer": mask["is_wearer"],
            "joints_px": project_points(clip.intrinsics, joints).tolist(),
            **placed_columns(joints, mask["side"]),
            "mano_pose": pose.ravel().tolist(),
            "mano_betas": betas.tolist(),
            "box": mask["box"],
            "score": mask["score"],
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }


def _reason(clip: ClipInput, look: HandPrediction, joints: np.ndarray) -> str | None:
    return _why_invalid(joints, project_points(clip.intrinsics, joints), look.mask["box"])


def _why_invalid(joints: np.ndarray, pixels: np.ndarray, box: list[float]) -> str | None:
    """The network is sure of everything: what it says is held against the mask and the arm."""
    if not 0.08 < joints[0, 2] < 3.0:
        return "out of reach"
    low, high = np.array(box[:2]), np.array(box[2:])
    margin = 0.25 * (high - low)
    inside = ((pixels > low - margin) & (pixels < high + margin)).all(axis=1).mean()
    if inside < 0.5:
        return "beside its mask"
    return None
