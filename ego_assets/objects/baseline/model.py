"""The rigid model of one object: its points, built and used frame by frame.

Here: triangulation, static windows, two-view start, PnP. Not here: pictures, rows.

Coordinates are normalised (x / z, y / z). `poses` are camera_from_object (4, 4) by frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ego_assets.objects.tables import ObjectReason
from ego_assets.vision.geometry import invert_pose, pose_matrix, rotation_angle_deg

MIN_POINTS = 6
MAX_MISSES = 6
MAX_TURN_DEG = 12.0
MIN_ANGLE_RAD = np.radians(1.5)
Observations = dict[int, dict[int, np.ndarray]]
"""{frame: {feature: (2,) normalised place}}"""


@dataclass
class ObjectModel:
    """Points of the object by feature, poses by frame, and what supports each pose."""

    points: dict[int, np.ndarray] = field(default_factory=dict)
    poses: dict[int, np.ndarray] = field(default_factory=dict)
    inliers: dict[int, int] = field(default_factory=dict)
    errors: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, ObjectReason] = field(default_factory=dict)
    misses: dict[int, int] = field(default_factory=dict)

    def judge(self, seen: list[int], agreed: set[int]) -> None:
        """Forget points that disagreed MAX_MISSES times running: they slid, or were never right."""
        for feature in seen:
            self.misses[feature] = 0 if feature in agreed else self.misses.get(feature, 0) + 1
            if self.misses[feature] >= MAX_MISSES:
                del self.points[feature], self.misses[feature]


def triangulate(
    views: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, float, float] | None:
    """(point, largest error, largest angle) of [(camera_from_world (4, 4), place (2,))]; or None.

    Linear triangulation over all views (Hartley and Zisserman 2004, 12.2).
    """
    lines = []
    for pose, place in views:
        lines.append(place[0] * pose[2] - pose[0])
        lines.append(place[1] * pose[2] - pose[1])
    _, _, basis = np.linalg.svd(np.array(lines))
    if abs(basis[-1, 3]) < 1e-9:
        return None
    point = basis[-1, :3] / basis[-1, 3]
    poses = np.stack([p for p, _ in views])
    seen = np.einsum("nij,j->ni", poses[:, :3, :3], point) + poses[:, :3, 3]
    if (seen[:, 2] <= 1e-6).any():
        return None
    error = np.linalg.norm(seen[:, :2] / seen[:, 2:] - np.stack([x for _, x in views]), axis=1)
    rays = np.einsum("nji,nj->ni", poses[:, :3, :3], seen)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    angle = float(np.arccos(np.clip((rays @ rays[0]).min(), -1, 1)))
    return point, float(np.sqrt((error**2).mean())), angle


def points_of(
    observations: Observations,
    poses: dict[int, np.ndarray],
    frames: list[int],
    limit: float,
    known: dict[int, np.ndarray] | None = None,
) -> tuple[dict[int, np.ndarray], int]:
    """({feature: point}, features that had the baseline to be judged), over some frames."""
    views: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for frame in frames:
        if frame in poses:
            for feature, place in observations.get(frame, {}).items():
                if known is None or feature not in known:
                    views.setdefault(feature, []).append((poses[frame], place))
    found, judged = {}, 0
    for feature, mine in views.items():
        if len(mine) < 3:
            continue
        step = max(1, len(mine) // 12)
        result = triangulate([*mine[::step], mine[-1]])
        if result is None or result[2] < MIN_ANGLE_RAD:
            continue
        judged += 1
        if result[1] <= limit:
            found[feature] = result[0]
    return found, judged


def static_start(
    observations: Observations, cameras: dict[int, np.ndarray], frames: list[int], limit: float
) -> tuple[list[int], dict[int, np.ndarray]] | None:
    """Longest stretch in which the object lies still: (frames, its points in the world).

    cameras: camera_from_world by frame. An object that lies still is seen as the scene is: its
    features meet in points under the cameras' own motion.
    """
    best: tuple[list[int], dict[int, np.ndarray]] | None = None
    usable = [f for f in frames if f in cameras]
    if not _has_baseline([cameras[f] for f in usable]):
        return None
    for length in (90, 60, 40, 25):
        for start in range(0, max(1, len(usable) - length + 1), max(5, length // 4)):
            window = usable[start : start + length]
            points, judged = points_of(observations, cameras, window, limit)
            is_still = len(points) >= 10 and len(points) >= 0.7 * judged
            if is_still and (best is None or len(points) > 1.2 * len(best[1])):
                best = window, points
        if best is not None:
            return best
    return best


def _has_baseline(cameras: list[np.ndarray]) -> bool:
    """Whether cameras (camera_from_world) are at different places: from one, nothing has depth."""
    if not cameras:
        return False
    poses = np.stack(cameras)
    places = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    return bool(np.ptp(places, axis=0).max() > 1e-9)


def two_view_start(
    observations: Observations, frames: list[int], limit: float
) -> tuple[list[int], dict[int, np.ndarray], dict[int, np.ndarray]] | None:
    """Start from the object's own motion: (frames, points, camera_from_object of two frames).

    The pair with the most parallax among those that share enough features; five-point essential
    matrix (Nister 2004). The scale is arbitrary: the distance of the two views is 1.
    """
    pairs = []
    for place, first in enumerate(frames[::5]):
        for second in frames[::5][place + 1 :]:
            shared = sorted(set(observations[first]) & set(observations[second]))
            if len(shared) >= 12:
                moved = [observations[second][f] - observations[first][f] for f in shared]
                spread = float(np.linalg.norm(np.std(moved, axis=0)))
                pairs.append((spread * np.sqrt(len(shared)), first, second, shared))
    for _, first, second, shared in sorted(pairs, reverse=True)[:3]:
        one = np.array([observations[first][f] for f in shared])
        other = np.array([observations[second][f] for f in shared])
        cv2.setRNGSeed(0)
        essential, mask = cv2.findEssentialMat(
            one, other, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=limit
        )
        if essential is None or essential.shape != (3, 3):
            continue
        count, rotation, translation, _ = cv2.recoverPose(
            essential, one, other, np.eye(3), mask=mask
        )
        if count < 10:
            continue
        poses = {first: np.eye(4), second: pose_matrix(rotation, translation.ravel())}
        found = {}
        for feature in shared:
            views = [(poses[f], observations[f][feature]) for f in (first, second)]
            result = triangulate(views)
            if result and result[1] <= limit and result[2] >= MIN_ANGLE_RAD:
                found[feature] = result[0]
        if len(found) >= 10:
            return [first, second], found, poses
    return None


def locate(
    model: ObjectModel,
    seen: dict[int, np.ndarray],
    guess: np.ndarray | None,
    limit: float,
    min_share: float,
) -> tuple[np.ndarray, int, float] | ObjectReason:
    """(camera_from_object, inliers, RMS error) by PnP, or the reason why not."""
    shared = [f for f in seen if f in model.points]
    if len(shared) < MIN_POINTS:
        return "few known features in view"
    points = np.array([model.points[f] for f in shared])
    places = np.array([seen[f] for f in shared])
    cv2.setRNGSeed(0)
    options: dict[str, Any] = {
        "reprojectionError": limit,
        "iterationsCount": 200,
        "confidence": 0.999,
        "flags": cv2.SOLVEPNP_SQPNP,
    }
    if guess is not None:
        options |= {
            "rvec": cv2.Rodrigues(guess[:3, :3])[0],
            "tvec": guess[:3, 3:].copy(),
            "useExtrinsicGuess": True,
            "flags": cv2.SOLVEPNP_ITERATIVE,
        }
    ok, rotation, translation, inliers = cv2.solvePnPRansac(
        points, places, np.eye(3), None, **options
    )
    if not ok or inliers is None or len(inliers) < MIN_POINTS:
        return "features fit no rigid pose"
    chosen = inliers.ravel()
    model.judge(shared, {shared[i] for i in chosen})
    if len(chosen) < min_share * len(shared):
        return "few features agree"
    rotation, translation = cv2.solvePnPRefineLM(
        points[chosen], places[chosen], np.eye(3), None, rotation, translation
    )
    pose = pose_matrix(cv2.Rodrigues(rotation)[0], translation.ravel())
    cam = points[chosen] @ pose[:3, :3].T + pose[:3, 3]
    if (cam[:, 2] <= 0).any() or not np.isfinite(pose).all():
        return "behind the camera"
    if guess is not None and rotation_angle_deg(pose[:3, :3], guess[:3, :3]) > MAX_TURN_DEG:
        return "jumps"
    error = np.linalg.norm(cam[:, :2] / cam[:, 2:] - places[chosen], axis=1)
    return pose, len(chosen), float(np.sqrt((error**2).mean()))


def extend(
    model: ObjectModel,
    observations: Observations,
    frames: list[int],
    start: list[int],
    limit: float,
    min_share: float,
) -> None:
    """Locate the object in every frame, from the start outwards; add points as they are seen."""
    place = frames.index(start[0]), frames.index(start[-1])
    for path in (frames[place[1] + 1 :], frames[: place[0]][::-1], start):
        guess: np.ndarray | None = None
        lost = 0
        for number, frame in enumerate(path):
            found = locate(model, observations.get(frame, {}), guess, limit, min_share)
            if isinstance(found, str):
                model.reasons[frame] = found
                lost += 1
                # Lost for long: it may be anywhere, and has to be found without a guess.
                guess = guess if lost < 10 else None
                continue
            lost = 0
            guess = model.poses[frame] = found[0]
            model.inliers[frame], model.errors[frame] = found[1], found[2]
            model.reasons.pop(frame, None)
            if number % 5 == 4:
                recent = path[max(0, number - 40) : number + 1]
                fresh, _ = points_of(observations, model.poses, recent, limit, model.points)
                model.points.update(fresh)


def refine(
    model: ObjectModel, observations: Observations, limit: float, min_share: float, rounds: int
) -> None:
    """Points from all poses, then poses from all points, in turn: drift evens out."""
    for _ in range(rounds):
        frames = sorted(model.poses)
        points, _ = points_of(observations, model.poses, frames, 1.5 * limit)
        if len(points) < MIN_POINTS:
            return
        model.points, model.misses = points, {}
        for frame in frames:
            found = locate(model, observations[frame], model.poses[frame], limit, min_share)
            if not isinstance(found, str):
                model.poses[frame], model.inliers[frame], model.errors[frame] = found


def recentred(model: ObjectModel, first: int) -> np.ndarray:
    """object_from_new (4, 4): axes of the camera at frame `first`, origin amid the points."""
    centre = np.median(np.array(list(model.points.values())), axis=0)
    return pose_matrix(invert_pose(model.poses[first])[:3, :3], centre)
