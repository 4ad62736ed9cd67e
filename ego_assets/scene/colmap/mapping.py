"""Structure from motion on keyframes: point tracks in, camera poses and 3D points out.

Here: the COLMAP database, its mappers (incremental, or GLOMAP) and what comes out of them as
numpy. Not here: which keyframes (`keyframes`), the frames between them (`registration`).
COLMAP puts the centre of the first pixel at (0.5, 0.5), the contract at (0, 0): converted here.
Sources: Schönberger and Frahm, "Structure-from-motion revisited", 2016; Pan et al., "Global
structure-from-motion revisited", 2024.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.focal_spread import focal_std
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.scene.tables import CameraReason
from resources.environment import leased_devices
from resources.processes.owned_folders import temporary_folder

_NEAR_STEPS = tuple(range(1, 7))
_VOTE_STEPS = (1, 2, 3)
_MIN_AGREEMENT = 0.7
_WIDE_STEPS = (9, 13, 19, 28)
_MIN_MATCHES = 15
_MIN_PAIR_SHARE = 0.4
_VERIFY_ERROR_PX = 1.5
_GPU_PICTURES = 50
"""COLMAP's own: smaller maps are solved on the CPU, which is faster, whatever is asked for."""
_FIRST_GPU = "0"
"""Of those that are visible: the leased one."""
_MODELS = {"PINHOLE": "PINHOLE", "OPENCV": "OPENCV", "OPENCV_FISHEYE": "OPENCV_FISHEYE"}


Verify = Callable[[int, int, np.ndarray], Any]
"""Two keyframes and (N, 2) matches to COLMAP's two-view geometry."""


@dataclass(frozen=True)
class SparseMap:
    """A reconstruction of the keyframes, in a frame and scale of its own.

    poses: world_from_camera (4, 4) by position of the keyframe in the track table; points
    (N, 3); track (N,) ascending, the point track that each came from; errors_px
    (N,) mean reprojection error in work pixels; angle_deg (N,) widest angle between two rays;
    intrinsics: of the shrunken picture, refined if that was asked for; device: what its bundle
    adjustment ran on, "cpu" or "gpu".
    """

    poses: dict[int, np.ndarray]
    points: np.ndarray
    track: np.ndarray
    errors_px: np.ndarray
    angle_deg: np.ndarray
    intrinsics: Intrinsics
    device: str = "cpu"


class MappingError(Exception):
    """No map came out: `reason` is for the rows, the message, with details, for the notes."""

    def __init__(self, reason: CameraReason, details: str) -> None:
        super().__init__(f"{reason}: {details}")
        self.reason = reason


def _import_pycolmap() -> Any:
    import pycolmap

    # Importing it sends SIGTERM to a handler of its own, past the one that this process chose.
    if threading.current_thread() is threading.main_thread():
        chosen = signal.getsignal(signal.SIGTERM)
        if chosen is not None:
            signal.signal(signal.SIGTERM, chosen)
    return pycolmap


def has_cuda() -> bool:
    """Whether this COLMAP was built with CUDA: PyPI's is not."""
    return bool(_import_pycolmap().has_cuda)


def solver_device(pycolmap: Any, pictures: int) -> str:
    """What a map of so many keyframes is solved on: "gpu" or "cpu".

    A GPU takes a pycolmap that was built with CUDA (PyPI's is not), a device that the executor
    leased to this step (CUDA_VISIBLE_DEVICES), and so many pictures that COLMAP would use it.
    """
    return "gpu" if pycolmap.has_cuda and leased_devices() and pictures >= _GPU_PICTURES else "cpu"


def build_map(
    tracks: TrackTable,
    keyframes: list[int],
    intrinsics: Intrinsics,
    refine_focal: bool,
    settings: ReconstructSettings,
) -> SparseMap:
    """Map the keyframes. `intrinsics` are of the shrunken picture. Raises `MappingError`."""
    pycolmap = _import_pycolmap()
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL.value)
    pycolmap.set_random_seed(settings.seed)
    with temporary_folder() as folder:
        database = folder / "database.db"
        camera = _camera(pycolmap, intrinsics, tracks.size, refine_focal)
        pairs = _fill_database(pycolmap, database, tracks, keyframes, camera, settings)
        if not pairs:
            raise MappingError(
                "no rigid scene", "no two keyframes see enough points that move together"
            )
        device = solver_device(pycolmap, len(keyframes))
        found = _run_mapper(pycolmap, database, folder, pairs, refine_focal, settings, device)
    if found is None:
        raise MappingError("no parallax", "the mapper found no pair of keyframes to begin with")
    scene = dataclasses.replace(_to_map(found, tracks, keyframes, intrinsics), device=device)
    if refine_focal:
        lens = dataclasses.replace(scene.intrinsics, focal_std_px=focal_std(pycolmap, found))
        scene = dataclasses.replace(scene, intrinsics=lens)
    return scene


def _camera(pycolmap: Any, intrinsics: Intrinsics, size: tuple[int, int], guessed: bool) -> Any:
    if guessed and intrinsics.model == "PINHOLE":
        # A guessed lens may be wide: without a radial term the focal length would make up for it.
        focal = 0.5 * (intrinsics.fx + intrinsics.fy)
        return pycolmap.Camera(
            camera_id=1,
            model="SIMPLE_RADIAL",
            width=size[0],
            height=size[1],
            params=[focal, intrinsics.cx + 0.5, intrinsics.cy + 0.5, 0.0],
            has_prior_focal_length=False,
        )
    lens = [*intrinsics.distortion, 0.0, 0.0, 0.0, 0.0][:4]
    params = [intrinsics.fx, intrinsics.fy, intrinsics.cx + 0.5, intrinsics.cy + 0.5]
    model = _MODELS[intrinsics.model]
    return pycolmap.Camera(
        camera_id=1,
        model=model,
        width=size[0],
        height=size[1],
        params=params if model == "PINHOLE" else params + lens,
        has_prior_focal_length=not guessed,
    )


@dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    inliers: int
    angle_deg: float


def _fill_database(
    pycolmap: Any,
    path: Path,
    tracks: TrackTable,
    keyframes: list[int],
    camera: Any,
    settings: ReconstructSettings,
) -> list[_Pair]:
    """Write keypoints and verified matches; returns the pairs (image ids count from 1)."""
    options = pycolmap.TwoViewGeometryOptions()
    options.compute_relative_pose = True
    options.detect_watermark = False
    options.ransac.max_error = _VERIFY_ERROR_PX
    options.ransac.max_num_trials = 1000
    options.ransac.random_seed = settings.seed
    keypoints = [tracks.at(p)[1].astype(np.float64) + 0.5 for p in keyframes]
    ids = [tracks.at(p)[0] for p in keyframes]

    deadline = time.monotonic() + settings.max_mapping_s

    def verify(i: int, j: int, matches: np.ndarray) -> Any:
        if time.monotonic() > deadline:  # as with a camera that is not this video's
            raise MappingError(
                "mapping took too long",
                f"keyframes were not compared within {settings.max_mapping_s} s (max_mapping_s)",
            )
        return pycolmap.estimate_calibrated_two_view_geometry(
            camera, keypoints[i], camera, keypoints[j], matches, options
        )

    moving = _moving_tracks(ids, verify)
    pairs = []
    with pycolmap.Database.open(path) as database:
        database.write_camera(camera, use_camera_id=True)
        _write_images(pycolmap, database, keypoints)
        for i, j, matches in _candidates(ids, (*_NEAR_STEPS, *_WIDE_STEPS), moving):
            geometry = verify(i, j, matches)
            count = len(geometry.inlier_matches)
            if count < max(_MIN_MATCHES, _MIN_PAIR_SHARE * len(matches)):
                continue
            database.write_matches(i + 1, j + 1, matches)
            database.write_two_view_geometry(i + 1, j + 1, geometry)
            pairs.append(_Pair(i + 1, j + 1, count, float(np.degrees(geometry.tri_angle))))
    return pairs


def _write_images(pycolmap: Any, database: Any, keypoints: list[np.ndarray]) -> None:
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(pycolmap.sensor_t(type=pycolmap.SensorType.CAMERA, id=1))
    database.write_rig(rig, use_rig_id=True)
    for number, points in enumerate(keypoints, start=1):
        image = pycolmap.Image(name=f"{number:05d}", camera_id=1, image_id=number)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=number, rig_id=1)
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(number, points.astype(np.float32))


def _candidates(
    ids: list[np.ndarray], steps: Sequence[int], dropped: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Pairs of keyframes worth verifying, with (N, 2) matches between their keypoints."""
    for i in range(len(ids)):
        for j in (i + s for s in steps if i + s < len(ids)):
            both, a, b = np.intersect1d(ids[i], ids[j], assume_unique=True, return_indices=True)
            kept = ~np.isin(both, dropped, assume_unique=True)
            if kept.sum() >= _MIN_MATCHES:
                yield i, j, np.column_stack([a[kept], b[kept]]).astype(np.uint32)


def _moving_tracks(ids: list[np.ndarray], verify: Verify) -> np.ndarray:
    """Tracks (ascending) that leave the epipolar geometry of most of their keyframe pairs.

    Neighbours decide: between them most points of the scene live on, while in wide pairs a thing
    that is carried along in view may be the majority.
    """
    count = 1 + max(int(i[-1]) for i in ids if len(i)) if any(len(i) for i in ids) else 0
    agreed, asked = np.zeros(count), np.zeros(count)
    for i, j, matches in _candidates(ids, _VOTE_STEPS, np.empty(0, np.int64)):
        geometry = verify(i, j, matches)
        if len(geometry.inlier_matches) < max(_MIN_MATCHES, _MIN_PAIR_SHARE * len(matches)):
            continue
        asked[ids[i][matches[:, 0]]] += 1
        agreed[ids[i][geometry.inlier_matches[:, 0]]] += 1
    return np.flatnonzero(agreed < _MIN_AGREEMENT * asked)


def _run_mapper(
    pycolmap: Any,
    database: Path,
    folder: Path,
    pairs: list[_Pair],
    refine_focal: bool,
    settings: ReconstructSettings,
    device: str,
) -> Any | None:
    """The largest model, or None."""
    if settings.mapper == "global":
        chosen = _global_options(pycolmap, refine_focal, settings, device)
        return _largest(pycolmap.global_mapping(database, folder, folder, chosen))
    # Begin with many points under a wide angle: over 8 degrees more angle is no use.
    ranked = sorted(pairs, key=lambda p: (-p.inliers * min(p.angle_deg, 8.0), p.first, p.second))
    for pair in ranked[:3]:
        options = _incremental_options(pycolmap, refine_focal, settings, device)
        options.init_image_id1, options.init_image_id2 = pair.first, pair.second
        found = _largest(pycolmap.incremental_mapping(database, folder, folder, options))
        if found is not None:
            return found
    return None


def _incremental_options(
    pycolmap: Any, refine_focal: bool, settings: ReconstructSettings, device: str
) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_use_gpu = device == "gpu"
    options.ba_gpu_index = _FIRST_GPU
    options.num_threads = 1
    options.random_seed = settings.seed
    options.max_runtime_seconds = settings.max_mapping_s
    options.extract_colors = False
    options.multiple_models = False
    options.min_model_size = 3
    options.ba_refine_focal_length = refine_focal
    options.ba_refine_extra_params = refine_focal
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_num_iterations = 30
    options.ba_global_max_refinements = 2
    options.ba_local_max_num_iterations = 15
    options.ba_local_max_refinements = 1
    mapper = options.mapper
    mapper.init_min_num_inliers = 30
    mapper.init_max_error = _VERIFY_ERROR_PX
    mapper.init_min_tri_angle = 1.0
    mapper.init_max_forward_motion = 0.99
    mapper.abs_pose_max_error = 4.0
    mapper.abs_pose_min_num_inliers = 15
    mapper.abs_pose_refine_focal_length = False
    mapper.abs_pose_refine_extra_params = False
    mapper.filter_max_reproj_error = settings.max_reprojection_error_px
    mapper.filter_min_tri_angle = 0.5
    mapper.ba_local_min_tri_angle = 2.0
    options.triangulation.min_angle = 0.5
    return options


def _global_options(
    pycolmap: Any, refine_focal: bool, settings: ReconstructSettings, device: str
) -> Any:
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = 1
    options.random_seed = settings.seed
    options.multiple_models = False
    adjustment = options.mapper.bundle_adjustment
    for solver in (options.mapper.global_positioning, adjustment.ceres):
        solver.use_gpu, solver.gpu_index = device == "gpu", _FIRST_GPU
    adjustment.refine_focal_length = refine_focal
    adjustment.refine_extra_params = refine_focal
    adjustment.ceres.solver_options.max_solver_time_in_seconds = settings.max_mapping_s
    return options


def _largest(models: dict[int, Any]) -> Any | None:
    usable = [m for _, m in sorted(models.items()) if m.num_reg_images() >= 3]
    return max(usable, key=lambda m: m.num_points3D()) if usable else None


def _to_map(
    found: Any, tracks: TrackTable, keyframes: list[int], intrinsics: Intrinsics
) -> SparseMap:
    poses, centres = {}, {}
    for number in sorted(found.reg_image_ids()):
        image = found.image(number)
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        poses[keyframes[number - 1]] = pose
        centres[number] = pose[:3, 3]
    best: dict[int, tuple[int, int]] = {}
    for key, point in found.points3D.items():
        element = point.track.elements[0]
        track = int(tracks.at(keyframes[element.image_id - 1])[0][element.point2D_idx])
        # A track that COLMAP broke in two makes two points: the longer one stands for it.
        best[track] = max(best.get(track, (0, 0)), (point.track.length(), -int(key)))
    names = sorted(best)
    chosen = [found.points3D[-best[t][1]] for t in names]
    return SparseMap(
        poses=poses,
        points=np.array([p.xyz for p in chosen]).reshape(-1, 3),
        track=np.array(names, np.int64),
        errors_px=np.array([p.error for p in chosen]),
        angle_deg=np.array([_widest_angle_deg(p, centres) for p in chosen]),
        intrinsics=_refined(found.camera(1), intrinsics),
    )


def _refined(camera: Any, before: Intrinsics) -> Intrinsics:
    params = [float(p) for p in camera.params]
    if camera.model.name != "SIMPLE_RADIAL":
        lens = before.distortion if before.model == "PINHOLE" else tuple(params[4:])
        return dataclasses.replace(before, fx=params[0], fy=params[1], distortion=lens)
    return dataclasses.replace(
        before, model="OPENCV", fx=params[0], fy=params[0], distortion=(params[3], 0.0, 0.0, 0.0)
    )


def _widest_angle_deg(point: Any, centres: dict[int, np.ndarray]) -> float:
    seen = np.array([centres[e.image_id] for e in point.track.elements if e.image_id in centres])
    rays = seen - point.xyz
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1.0, 1.0))))
