"""FoundationPose object poses (Wen et al., CVPR 2024), by the user's own checkout of it.

Here: which object has which mesh, when it is looked for and when it is followed, what of the
answers is believed, rows. Not here: what is kept of a take (`tracks`), and its code, which its
licence keeps where it is: it runs in a process of its own (`bridge`, `child`), in its own
environment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.feature import load
from ego_assets.models.weights import WeightsError, WeightsMissingError
from ego_assets.objects.baseline.poses import BaselineObjectPoseEstimator, empty_columns
from ego_assets.objects.foundationpose import child as far_side
from ego_assets.objects.foundationpose.bridge import Bridge, BridgeError
from ego_assets.objects.foundationpose.meshes import Mesh, MeshLibrary
from ego_assets.objects.foundationpose.tracks import Sighting, Track
from ego_assets.objects.settings import FoundationPoseSettings, ObjectPoseSettings
from ego_assets.objects.tables import ObjectReason
from ego_assets.operator import Carried, ClipInput, ClipOutput, MetricDepth, Rows
from ego_assets.vision.cameras import lens_of_cameras, scaled_intrinsics, undistortion
from ego_assets.vision.geometry import matrix_from_quaternion, pose_matrix, quaternion_from_matrix
from ego_assets.vision.mask_scaling import decode_nearest

MIN_MASK_PX = 64
MIN_DEPTH_PX = 16


@dataclass(frozen=True)
class PinholeView:
    """A picture as a pinhole camera of (3, 3) `matrix` sees it, its depth in metres (H, W), and by
    track the masks of the objects; hands: (H, W) bool."""

    frame_index: int
    pts_s: float
    image: np.ndarray
    depth: np.ndarray
    matrix: np.ndarray
    masks: dict[str, np.ndarray]
    hands: np.ndarray


class FoundationPoseEstimator:
    """frames, `object_masks`, `hand_masks`, cameras → `object_poses`.

    An object without a mesh goes to the baseline, and its rows say so.
    """

    name = "foundationpose"
    version = "4"
    quality_tier = "reference"
    weights_hash = ""
    on_device = True

    def __init__(self, settings: FoundationPoseSettings, weights: Path) -> None:
        self.settings = settings
        self.depth: MetricDepth = _depth_class(settings)(settings.depth_settings, weights)
        self.library = MeshLibrary(weights / settings.meshes, settings.mesh_scale)
        self.baseline = BaselineObjectPoseEstimator(
            ObjectPoseSettings(**{n: getattr(settings, n) for n in ObjectPoseSettings.model_fields})
        )
        self.bridge = _bridge(settings, weights)
        self._loaded: set[str] = set()
        self._make_ready()

    @staticmethod
    def identity(settings: FoundationPoseSettings, weights: Path) -> str:
        """What results depend on beside version, settings and files. Raises WeightsError."""
        source: type[MetricDepth] = _depth_class(settings)
        return source.identity(settings.depth_settings, weights)

    @staticmethod
    def check(settings: FoundationPoseSettings, weights: Path) -> str:
        """What is set up, for people. Nothing of the checkout is run. Raises WeightsError."""
        depth = FoundationPoseEstimator.identity(settings, weights)
        library = MeshLibrary(weights / settings.meshes, settings.mesh_scale)
        for name in library.paths:
            library.mesh(name)
        bridge = _bridge(settings, weights)
        try:
            bridge.start()
        finally:
            bridge.close()
        python, missing = bridge.hello.get("python"), bridge.hello.get("missing")
        if missing:
            raise WeightsError(
                f"{bridge.command[0]} (Python {python}) finds no {', '.join(missing)}: name the "
                "interpreter of FoundationPose's own environment with the setting `python`"
            )
        return f"checkout for Python {python}, {len(library.paths)} meshes, depth by {depth}"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """One row per mask row; a pose is null where it is not valid.

        Raises BridgeError if FoundationPose fails, dies or hangs; the next clip gets a new one.
        """
        known = carried or {}
        masks = clip.tables["object_masks"].to_pylist()
        held = {t: Track.unpacked(s) for t, s in known.get("tracks", {}).items()}
        tracks = self._tracks(masks, held)
        bare = sorted({r["label"] for r in masks if r["track_id"] not in tracks})
        others = self._without_mesh(clip, set(tracks), known.get("baseline"))
        mine = [r for r in masks if r["track_id"] in tracks]
        self._follow(clip, mine, tracks)
        rows = self._rows(clip, mine, tracks) + others.tables["object_poses"]
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        since = clip.clip["end_pts_s"] - self.settings.carry_s
        state = {t: track.packed(since) for t, track in tracks.items()}
        return ClipOutput(
            {"object_poses": rows},
            carried={"tracks": state, "baseline": others.carried},
            notes={"labels_without_mesh": bare} if bare else {},
        )

    def _tracks(self, masks: Rows, held: dict[str, Track]) -> dict[str, Track]:
        """Of the objects that have a mesh, those seen here: what most of a track's masks say they
        are, or what an earlier clip of the take took them for."""
        labels: dict[str, Counter[str]] = {}
        for row in masks:
            labels.setdefault(row["track_id"], Counter())[row["label"]] += 1
        found = {}
        for track, counts in labels.items():
            if track in held and held[track].mesh in self.library.paths:
                found[track] = held[track]
                continue
            label = min(counts, key=lambda name: (-counts[name], name))
            mesh = self.library.find(label)
            if mesh is not None:
                found[track] = Track(mesh)
        return found

    def _without_mesh(self, clip: ClipInput, tracks: set[str], known: Carried | None) -> ClipOutput:
        masks = clip.tables["object_masks"]
        mine = pc.is_in(masks["track_id"], value_set=pa.array(sorted(tracks), pa.string()))
        rest = replace(clip, tables={**clip.tables, "object_masks": masks.filter(pc.invert(mine))})
        return self.baseline.process(rest, known)

    # -- looking ---------------------------------------------------------------------------------

    def _follow(self, clip: ClipInput, masks: Rows, tracks: dict[str, Track]) -> None:
        """Look at every mask that the clip before has not looked at."""
        due: dict[int, Rows] = {}
        for row in masks:
            if row["frame_index"] not in tracks[row["track_id"]].seen:
                due.setdefault(row["frame_index"], []).append(row)
        if not due:
            return
        self._make_ready()
        for name in sorted({t.mesh for t in tracks.values()} - self._loaded):
            self.library.mesh(name)  # a file that cannot be read is told before it is sent on
            path = str(self.library.paths[name].resolve())
            request = {"op": "mesh", "name": name, "path": path, "scale": self.library.scale}
            self.bridge.ask(request, {}, self.settings.answer_timeout_s)
            self._loaded.add(name)
        for view in self._views(clip, due):
            for track, sighting in self._look(view, tracks).items():
                tracks[track].seen[view.frame_index] = sighting

    def _make_ready(self) -> None:
        """Start FoundationPose unless it runs. Raises WeightsError: it is not set up."""
        if self.bridge.is_running:
            return
        self._loaded = set()
        self.bridge.start()
        request = {"op": "load", "checkout": str(self.bridge.checkout)}
        try:
            self.bridge.ask(request, {}, self.settings.load_timeout_s)
        except BridgeError as error:
            raise WeightsError(f"FoundationPose at {self.bridge.checkout}: {error}") from error

    def _views(self, clip: ClipInput, due: dict[int, Rows]) -> Iterator[PinholeView]:
        hands: dict[int, Rows] = {}
        for row in clip.tables["hand_masks"].to_pylist():
            hands.setdefault(row["frame_index"], []).append(row)
        maps, is_known, full = None, False, lens_of_cameras(clip)
        frames = clip.frames.read(max_side_px=self.settings.work_side_px, indices=sorted(due))
        for frame in frames:
            matrix = full.matrix(frame.scale)
            shape = frame.image.shape[:2]
            if not is_known:
                lens = scaled_intrinsics(full, frame.scale, frame.scale)
                maps, is_known = undistortion(lens, matrix, shape[::-1]), True
            image = frame.image
            if maps is not None:
                image = cv2.remap(image, *maps, cv2.INTER_LINEAR)
            covered = np.zeros(shape, bool)
            for row in hands.get(frame.index, []):
                covered |= _small(row, shape, maps)
            yield PinholeView(
                frame.index,
                frame.pts_s,
                image,
                self._depth(image, matrix),
                matrix,
                {r["track_id"]: _small(r, shape, maps) for r in due[frame.index]},
                covered,
            )

    def _depth(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        (found,) = self.depth([image], float(matrix[0, 0]) / image.shape[1])
        if np.ndim(found) != 2:
            raise RuntimeError(
                f"{self.settings.depth} gave depth of shape {np.shape(found)}: it should be (h, w)"
            )
        metres: np.ndarray = np.asarray(found, np.float32)
        metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
        if metres.shape != image.shape[:2]:
            # Nearest: between an object and what is behind it there is nothing.
            metres = cv2.resize(metres, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return metres

    def _look(self, view: PinholeView, tracks: dict[str, Track]) -> dict[str, Sighting]:
        """Follow what was seen just before; look anew for the rest, and for what gets lost."""
        found: dict[str, Sighting] = {}
        jobs: dict[str, np.ndarray | None] = {}
        for track, mask in view.masks.items():
            reason = _unfit(view, mask)
            last = tracks[track].last_pose(view.frame_index)
            if reason:
                found[track] = _miss(view, reason)
            elif last is not None and view.pts_s - last.pts_s <= self.settings.max_gap_s:
                jobs[track] = last.pose
            elif view.pts_s - tracks[track].tried_s >= self.settings.retry_s:
                jobs[track] = None
            else:
                found[track] = _miss(view, "not looked for again yet")
        found |= self._ask(view, jobs, tracks)
        lost: dict[str, np.ndarray | None] = {}
        for track, before in jobs.items():
            is_due = view.pts_s - tracks[track].tried_s >= self.settings.retry_s
            if before is not None and found[track].pose is None and is_due:
                lost[track] = None
        found |= self._ask(view, lost, tracks)
        for track in [t for t, before in jobs.items() if before is None] + list(lost):
            if found[track].pose is None:
                tracks[track].tried_s = view.pts_s
        return found

    def _ask(
        self, view: PinholeView, jobs: dict[str, np.ndarray | None], tracks: dict[str, Track]
    ) -> dict[str, Sighting]:
        """Sightings of some tracks: from a pose (4, 4), or from nothing (None)."""
        if not jobs:
            return {}
        settings = self.settings
        listed = [
            {
                "mesh": tracks[track].mesh,
                "action": "register" if pose is None else "track",
                "iterations": (
                    settings.register_iterations if pose is None else settings.track_iterations
                ),
            }
            for track, pose in jobs.items()
        ]
        arrays = {
            "image": view.image,
            "depth": view.depth,
            "matrix": view.matrix,
            "masks": np.stack([view.masks[t] for t in jobs]).astype(np.uint8),
            "poses": np.stack([np.eye(4) if p is None else p for p in jobs.values()]),
        }
        request = {"op": "look", "jobs": listed}
        _, answer = self.bridge.ask(request, arrays, settings.answer_timeout_s)
        poses = answer.get("poses", np.empty(0))
        if poses.shape != (len(jobs), 4, 4):
            self.bridge.close()
            raise BridgeError(f"its answer to `look` has poses of shape {poses.shape}")
        return {
            track: self._judge(view, track, pose, self.library.mesh(tracks[track].mesh))
            for track, pose in zip(jobs, poses, strict=True)
        }

    def _judge(self, view: PinholeView, track: str, pose: np.ndarray, mesh: Mesh) -> Sighting:
        """It never says that it is lost: the pose is held against the mask. What a hand covers
        says nothing."""
        turn = pose[:3, :3]
        if not np.isfinite(pose).all() or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-2):
            return _miss(view, "not rigid")
        if np.linalg.det(turn) < 0 or pose[2, 3] <= 0:
            return _miss(view, "behind the camera")
        drawn = mesh.silhouette(pose, view.matrix, view.depth.shape) & ~view.hands
        mask = view.masks[track] & ~view.hands
        union = int(np.count_nonzero(drawn | mask))
        overlap = int(np.count_nonzero(drawn & mask)) / max(1, union)
        if overlap < self.settings.min_mask_overlap:
            return replace(_miss(view, "mesh and mask do not overlap"), overlap=overlap)
        return Sighting(view.frame_index, view.pts_s, pose.copy(), overlap)

    # -- rows ------------------------------------------------------------------------------------

    def _rows(self, clip: ClipInput, masks: Rows, tracks: dict[str, Track]) -> Rows:
        worlds = {r["frame_index"]: r for r in clip.tables["scene_reconstruction"].to_pylist()}
        rows = []
        for mask in masks:
            track, frame = tracks[mask["track_id"]], mask["frame_index"]
            row = clip.row(frame, mask["pts_s"]) | empty_columns(mask["track_id"])
            rows.append(row)
            file = self.library.paths[track.mesh].relative_to(self.library.folder)
            row |= {
                "backend": self.name,
                "quality_tier": self.quality_tier,
                "object_frame": "mesh",
                "mesh_uri": f"{self.settings.meshes}/{file.as_posix()}",
                "scale_kind": "metric",
            }
            seen = track.seen.get(frame)
            if seen is None or seen.pose is None:
                row["invalid_reason"] = seen.reason if seen else "the frame does not decode"
                continue
            row |= {
                "is_valid": True,
                "camera_from_object_m": seen.pose[:3, 3].tolist(),
                "camera_from_object_xyzw": quaternion_from_matrix(seen.pose[:3, :3]).tolist(),
                "score": float(seen.overlap * mask["score"]),
            }
            row |= _in_world(seen.pose, worlds.get(frame))
        return rows


def _in_world(pose: np.ndarray, world: dict[str, Any] | None) -> dict[str, Any]:
    """The columns of the pose in the world: none where the world is not in metres too."""
    if world is None or not world["is_valid"] or world["scale_kind"] != "metric":
        return {}
    turn = matrix_from_quaternion(np.array(world["world_from_camera_xyzw"]))
    placed = pose_matrix(turn, np.array(world["world_from_camera_m"])) @ pose
    return {
        "world_from_object_m": placed[:3, 3].tolist(),
        "world_from_object_xyzw": quaternion_from_matrix(placed[:3, :3]).tolist(),
        "world_id": world["world_id"],
    }


def _miss(view: PinholeView, reason: ObjectReason) -> Sighting:
    return Sighting(view.frame_index, view.pts_s, None, 0.0, reason)


def _unfit(view: PinholeView, mask: np.ndarray) -> ObjectReason | None:
    """Why there is nothing to look at; None: there is."""
    if np.count_nonzero(mask) < MIN_MASK_PX:
        return "mask too small"
    if np.count_nonzero(view.depth[mask]) < MIN_DEPTH_PX:
        return "no depth at the mask"
    return None


def _small(
    row: dict[str, Any], shape: tuple[int, int], maps: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """(H, W) bool mask of a row in the picture that is looked at."""
    mask: Any = decode_nearest(row["rle"], row["height_px"], row["width_px"], shape)
    if maps is not None:
        mask = cv2.remap(mask, *maps, cv2.INTER_NEAREST)
    small: np.ndarray = mask > 0
    return small


def _depth_class(settings: FoundationPoseSettings) -> Any:
    """Raises WeightsMissingError if no source of depth is set, WeightsError if there is none of
    that name."""
    if ":" not in settings.depth:
        raise WeightsMissingError(
            "FoundationPose needs metric depth and none is set: name a source with the setting "
            "`depth`, as package.module:Class (docs/models.md)"
        )
    try:
        return load(settings.depth)
    except (ImportError, AttributeError) as error:
        raise WeightsError(f"the source of depth {settings.depth!r}: {error}") from error


def _bridge(settings: FoundationPoseSettings, weights: Path) -> Bridge:
    script = Path(far_side.__file__).resolve()
    return Bridge(settings.python, script, (weights / settings.checkpoint).resolve())
