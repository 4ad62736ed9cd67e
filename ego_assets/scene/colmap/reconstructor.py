"""The camera of every frame of a clip, and sparse points of its scene, without any weights.

Here: the operator: what is masked, the order of the steps. Not here: the steps themselves
(`point_tracks`, `keyframes`, `mapping`, `registration`, `witnesses`, `take_alignment`), rows with
their evidence (`rows`).

A backend that sees depth (`metric_scale`) gives a take its metres: the first clip of a world fixes
them, and those that are moved into it follow.

Points are followed through shrunken pictures with hands and objects masked out; keyframes are
mapped by COLMAP; every frame is then registered against the map, each with its own evidence, and
its pose held against features that the map does not know. A camera that stands still has one pose
(`static_camera`). A frame or clip that bears neither is invalid, with the reason, and has no pose.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.operator import Carried, ClipInput, ClipOutput, Intrinsics, Rows
from ego_assets.scene.colmap.keyframes import checked_keyframes
from ego_assets.scene.colmap.lens import calibrated, start_intrinsics, work_intrinsics
from ego_assets.scene.colmap.mapping import MappingError, SparseMap, build_map, has_cuda
from ego_assets.scene.colmap.metric_scale import (
    MetricScale,
    ScaleError,
    SizedDepthSource,
)
from ego_assets.scene.colmap.point_tracks import Seeds, TrackTable, collect_tracks
from ego_assets.scene.colmap.registration import Registration, by_frame, register_frames
from ego_assets.scene.colmap.rows import arrays_of, camera_columns, evidence_of
from ego_assets.scene.colmap.take_alignment import Anchors, Similarity, align
from ego_assets.scene.colmap.take_scale import scale_of_take
from ego_assets.scene.colmap.witnesses import Witnesses, without_contradicted
from ego_assets.scene.confidence import confidence_of
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.scene.static_camera import StaticCamera, find_static
from ego_assets.scene.tables import CameraReason
from ego_assets.vision.mask_regions import MaskedThings
from resources.environment import leased_devices

TABLE = "scene_reconstruction"
_ALL_STILL = 0.9
"""Share of a clip's frames with the camera in one place from which there is nothing to map."""


@dataclass(frozen=True)
class _Solution:
    """What came of a clip, in the world `world_id`; in metres if there is a scale, or if the world
    is that of a camera that never moved."""

    world_id: str
    scene: SparseMap
    registrations: list[Registration]
    intrinsics: Intrinsics
    scale: MetricScale | None = None
    is_metric: bool = False


class PycolmapReconstructor:
    """Structure from motion on point tracks (COLMAP), then perspective-n-point a frame."""

    name = "pycolmap"
    version = "6"
    quality_tier = "baseline"
    weights_hash = ""
    depth: SizedDepthSource | None = None
    on_device = False

    def __init__(self, settings: ReconstructSettings) -> None:
        self.settings = settings

    @classmethod
    def may_use_device(cls) -> bool:
        """Whether it has any use of a device here: bundle adjustment, if COLMAP has CUDA."""
        return cls.on_device or has_cuda()

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A row for every frame of the clip; points (N, 3), colors (N, 3), errors (N) in full px.

        Poses are world_from_camera in the world `world_id`, of arbitrary scale unless the backend
        sees depth, or hands are seen. Raises BadInputError if no frame decodes.
        """
        settings = self.settings
        anchors = Anchors.from_carried(carried)
        start = start_intrinsics(clip.intrinsics, anchors)
        masks = MaskedThings(clip.tables, settings.mask_margin_px)
        witnesses = Witnesses()
        frames = clip.frames.read(max_side_px=settings.work_side_px)
        tracks = collect_tracks(
            witnesses.watch(frames, masks.forbidden),
            masks.forbidden,
            settings.max_tracks,
            _seeds(anchors, clip),
        )
        work = work_intrinsics(start, tracks.size, clip)
        notes: dict[str, Any] = {}
        solution: _Solution | None = None
        reason: CameraReason = "the frame does not decode"
        rest = find_static(tracks, settings)
        try:
            if rest is not None and rest.share >= _ALL_STILL:
                raise MappingError("no parallax", f"the camera stands still ({rest})")
            solution = self._solve(clip, tracks, witnesses, work, start, anchors, notes)
        except MappingError as error:
            reason = error.reason
            solution = self._locate(tracks, witnesses, work, start, anchors)
            notes["no_map_of_its_own"] = str(error)
            if rest is not None:
                solution = _at_rest(clip, tracks, rest, solution, work, start, anchors)
        if solution is not None:
            known = MetricScale.from_carried(carried)
            if known is not None and anchors and anchors.world_id == solution.world_id:
                solution = dataclasses.replace(solution, scale=known)
            elif len(solution.scene.points):
                solution = self._in_metres(clip, tracks, solution, anchors, notes)
        return self._output(clip, tracks, solution, start, reason, notes)

    def _solve(
        self,
        clip: ClipInput,
        tracks: TrackTable,
        witnesses: Witnesses,
        work: Intrinsics,
        start: Intrinsics,
        anchors: Anchors | None,
        notes: dict[str, Any],
    ) -> _Solution:
        """A map of the clip's own, moved into the take's world where that is sound."""
        settings = self.settings
        guessed = start.source == "assumed_fov"
        chosen = checked_keyframes(tracks, work, not guessed, settings, notes)
        # A short look around does not fix a focal length: then the guess is the better one.
        calibrate = guessed and len(chosen) >= settings.min_calibration_keyframes
        scene = build_map(tracks, chosen, work, calibrate, settings)
        notes["mapped on"] = scene.device
        if scene.device == "gpu":
            gpu = leased_devices()[0]
            notes["accelerator"] = json.dumps({"gpu": gpu, "used_by": "pycolmap"})
        intrinsics = calibrated(start, work, scene.intrinsics) if calibrate else start
        angle = float(np.median(scene.angle_deg)) if len(scene.angle_deg) else 0.0
        notes |= {"points": len(scene.points), "triangulation_angle_deg": round(angle, 2)}
        if angle < settings.min_triangulation_angle_deg:
            raise MappingError("no parallax", f"the points' median angle is {angle:.2f} deg")
        found = register_frames(tracks, scene, settings)
        _must_fit(found, settings.min_registered_share)
        agreeing = witnesses.agreeing(tracks, found, scene.intrinsics, settings)
        if not np.isnan(agreeing).all():
            typical = float(np.nanmedian(agreeing))
            notes["witness_share"] = round(typical, 2)
            if typical < settings.min_witness_share:
                details = f"{100 * typical:.0f} % lie where the poses have them"
                raise MappingError("other features disagree", details)
        found = without_contradicted(found, agreeing, settings.min_witness_share)
        _must_fit(found, settings.min_registered_share)
        solution = _Solution(clip.clip_id, scene, found, intrinsics)
        if anchors is None:
            return solution
        alignment = align(anchors, _poses(tracks, found), _pairs(anchors, scene))
        notes["take_alignment"] = alignment.problem or (
            f"{alignment.frames} frames, {alignment.points} points: {alignment.turn_deg:.2f} deg, "
            f"{100 * alignment.centre_over_depth:.2f} % of the depth"
        )
        if alignment.problem or alignment.similarity is None:
            return solution
        return _moved(solution, alignment.similarity, anchors.world_id)

    def _locate(
        self,
        tracks: TrackTable,
        witnesses: Witnesses,
        work: Intrinsics,
        start: Intrinsics,
        anchors: Anchors | None,
    ) -> _Solution | None:
        """A clip that bears no map itself, found in the points of the clip before it."""
        if anchors is None or not len(anchors.points) or not len(tracks):
            return None
        scene = _map_of(anchors.points, work)
        found = register_frames(tracks, scene, self.settings)
        agreeing = witnesses.agreeing(tracks, found, work, self.settings)
        found = without_contradicted(found, agreeing, self.settings.min_witness_share)
        if not any(r.pose is not None for r in found):
            return None
        return _Solution(anchors.world_id, scene, found, start)

    def _in_metres(
        self,
        clip: ClipInput,
        tracks: TrackTable,
        solution: _Solution,
        anchors: Anchors | None,
        notes: dict[str, Any],
    ) -> _Solution:
        """The solution in metres, or as it is with the reason in the notes."""
        try:
            scale = scale_of_take(
                clip,
                tracks,
                solution.scene,
                solution.registrations,
                solution.intrinsics,
                self.settings,
                self.depth,
                notes,
            )
        except ScaleError as error:
            notes["no_metric_scale"] = str(error)
            return solution
        notes["metric_scale"] = str(scale)
        # What this clip was aligned to stays without a scale: in metres, it is another world.
        follows = anchors is not None and anchors.world_id == solution.world_id
        world_id = clip.clip_id if follows else solution.world_id
        stretch = Similarity(scale.factor, np.eye(3), np.zeros(3))
        return dataclasses.replace(_moved(solution, stretch, world_id), scale=scale)

    def _output(
        self,
        clip: ClipInput,
        tracks: TrackTable,
        solution: _Solution | None,
        start: Intrinsics,
        reason: CameraReason,
        notes: dict[str, Any],
    ) -> ClipOutput:
        intrinsics = start if solution is None else solution.intrinsics
        world_id = clip.clip_id if solution is None else solution.world_id
        found = {} if solution is None else by_frame(tracks, solution.registrations)
        decoded = set(tracks.frame_index.tolist())
        scale = None if solution is None else solution.scale
        common = camera_columns(world_id, intrinsics, scale)
        common |= {"backend": self.name, "quality_tier": self.quality_tier}
        if solution is not None and solution.is_metric:
            common["scale_kind"] = "metric"
        full_px = clip.frames.width / max(1, tracks.size[0])
        rows: Rows = []
        for frame in range(clip.clip["start_frame"], clip.clip["end_frame"]):
            why: CameraReason = reason if frame in decoded else "the frame does not decode"
            registration = found.get(frame, Registration(None, reason=why))
            evidence = evidence_of(registration, full_px)
            row = clip.row(frame, clip.frames.time_of(frame)) | common | evidence
            rows.append(row | {"confidence": confidence_of(row)})
        notes["registered_share"] = round(sum(r["is_valid"] for r in rows) / max(1, len(rows)), 3)
        output = ClipOutput({TABLE: rows}, notes=notes)
        if solution is not None:
            if len(solution.scene.points):
                output.arrays[TABLE] = arrays_of(tracks, solution.scene, full_px)
            output.carried = _carried(clip, tracks, solution, self.settings.carry_s)
        return output


def _seeds(anchors: Anchors | None, clip: ClipInput) -> Seeds | None:
    """The mapped points of the clip before, in the first shared frame that it registered."""
    if anchors is None or not len(anchors.points):
        return None
    start, end = clip.clip["start_frame"], clip.clip["end_frame"]
    shared = [f for f in sorted(anchors.seen) if start <= f < end and len(anchors.seen[f][0])]
    if not shared:
        return None
    names, pixels = anchors.seen[shared[0]]
    # Outside the picture, and so dropped, unless seen.
    full = np.full((len(anchors.points), 2), -10.0)
    full[names] = pixels
    return Seeds(shared[0], full, (clip.frames.width, clip.frames.height))


def _poses(tracks: TrackTable, found: list[Registration]) -> dict[int, np.ndarray]:
    return {f: r.pose for f, r in by_frame(tracks, found).items() if r.pose is not None}


def _pairs(anchors: Anchors, scene: SparseMap) -> tuple[np.ndarray, np.ndarray]:
    """The points of both maps that are one track: in this clip's world, in the take's."""
    shared = scene.track < len(anchors.points)
    return scene.points[shared], anchors.points[scene.track[shared]]


def _must_fit(found: Sequence[Registration], least: float) -> None:
    """Raises MappingError if a smaller share of the frames than `least` has a pose."""
    share = sum(r.pose is not None for r in found) / len(found)
    if share < least:
        raise MappingError("map fits too few frames", f"{100 * share:.0f} %")


def _moved(solution: _Solution, to_take: Similarity, world_id: str) -> _Solution:
    scene = dataclasses.replace(
        solution.scene,
        points=to_take.points(solution.scene.points),
        poses={k: to_take.pose(p) for k, p in solution.scene.poses.items()},
    )
    found = [
        r if r.pose is None else dataclasses.replace(r, pose=to_take.pose(r.pose))
        for r in solution.registrations
    ]
    return dataclasses.replace(solution, world_id=world_id, scene=scene, registrations=found)


def _at_rest(
    clip: ClipInput,
    tracks: TrackTable,
    rest: StaticCamera,
    located: _Solution | None,
    work: Intrinsics,
    start: Intrinsics,
    anchors: Anchors | None,
) -> _Solution:
    """The camera in one place: where it stood in the clip before, or where that clip's points show
    it to be, else the origin of a world of its own.

    Frames out of that place keep the pose that the points give them.
    """
    stood = np.flatnonzero(rest.in_place).tolist()
    frames = tracks.frame_index.tolist()
    poses = [anchors.poses[frames[i]] for i in stood if anchors and frames[i] in anchors.poses]
    if located is not None and not poses:
        poses = [p for i in stood if (p := located.registrations[i].pose) is not None]
    if anchors is None or not poses:
        found, nothing = rest.registrations(np.eye(4)), _map_of(np.empty((0, 3)), work)
        return _Solution(clip.clip_id, nothing, found, start, is_metric=True)
    found = rest.registrations(_middle(poses))
    if located is None:
        nothing = _map_of(np.empty((0, 3)), work)
        return _Solution(anchors.world_id, nothing, found, start, is_metric=anchors.is_metric)
    # The next clip may be located in the same points.
    both = zip(found, located.registrations, strict=True)
    found = [still if there.pose is None else _supported(still, there) for still, there in both]
    return dataclasses.replace(located, registrations=found, is_metric=anchors.is_metric)


def _supported(still: Registration, there: Registration) -> Registration:
    """Return a frame at rest with the points that it was located by; else as it was located."""
    if still.pose is None:
        return there
    return dataclasses.replace(still, points=there.points, xy=there.xy)


def _middle(poses: Sequence[np.ndarray]) -> np.ndarray:
    """Return that of several poses of one camera which lies in the middle of them."""
    centres = np.array([pose[:3, 3] for pose in poses])
    off = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
    return poses[int(np.argmin(off))]


def _map_of(points: np.ndarray, work: Intrinsics) -> SparseMap:
    """Return points of the clip before as a map, each the track of its number."""
    count = len(points)
    return SparseMap(
        poses={},
        points=points,
        track=np.arange(count),
        errors_px=np.zeros(count),
        angle_deg=np.zeros(count),
        intrinsics=work,
    )


def _carried(clip: ClipInput, tracks: TrackTable, solution: _Solution, carry_s: float) -> Carried:
    """Poses of the last seconds and the points that they saw, for the next clip of the take."""
    since = float(clip.clip["end_pts_s"]) - carry_s
    recent = [
        (int(f), r)
        for f, t, r in zip(tracks.frame_index, tracks.pts_s, solution.registrations, strict=True)
        if t >= since and r.pose is not None and r.points is not None
    ]
    if not recent:
        return {}
    used = np.unique(np.concatenate([np.asarray(r.points) for _, r in recent]))
    zoom = np.array([clip.frames.width / tracks.size[0], clip.frames.height / tracks.size[1]])
    seen = {
        f: (np.searchsorted(used, np.asarray(r.points)), (np.asarray(r.xy) + 0.5) * zoom - 0.5)
        for f, r in recent
    }
    scale = {} if solution.scale is None else solution.scale.to_carried()
    anchors = Anchors(
        world_id=solution.world_id,
        poses={f: np.asarray(r.pose) for f, r in recent},
        points=solution.scene.points[used],
        seen=seen,
        intrinsics=solution.intrinsics,
        is_metric=solution.is_metric,
    )
    return anchors.to_carried() | scale
