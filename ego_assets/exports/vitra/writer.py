"""Writes episodes in the layout of VITRA-1M: annotations as `.npy`, an index, and a video each.

VITRA has no videos of its own, and says where in others its frames are. Here each episode has a
video, of a pinhole camera whose principal point is in the middle, which VITRA takes for granted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.files import naming
from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    FolderPart,
    Progress,
    digest_of,
    write_episodes,
)
from ego_assets.exports.grid import ExportError
from ego_assets.exports.motion.columns import CAMERA, KnownNumbers
from ego_assets.exports.motion.lens import only_camera, pinhole_pictures
from ego_assets.exports.motion.names import check_file_name
from ego_assets.exports.vitra.hands import hand_of
from ego_assets.exports.vitra.settings import VitraSettings
from ego_assets.rows import SIDES
from ego_assets.vision.geometry import matrix_from_quaternion

VERSION = "2"
"""Raised when the same episode would be written otherwise."""
INDEX_FILE = "episode_frame_index.npz"
_ANNOTATION, _VIDEO = "episode.npy", "episode.mp4"


def mano_of(side: str) -> str:
    """The column of a hand's MANO pose (48, axis-angle), shape (10) and joints (63, camera)."""
    return f"{side}_mano"


def write_vitra(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: VitraSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the files of exactly these episodes, which are taken one at a time.

    They have one camera, whose intrinsics are in their provenance, and columns `world_from_camera`
    and `{side}_mano` (`mano_of`) of a hand or both. Raises ExportError for others.
    """
    settings = settings or VitraSettings()
    under = settings.encoded_under() | {"version": VERSION, "by": video.LIBRARY}
    with ExportFolder.opened(out, "vitra") as folder:
        return write_episodes(
            folder,
            episodes,
            lambda episode: _files_of(episode, settings, under),
            under,
            provenance or {},
            progress or (lambda what, frames: None),
            _frame_index,
        )


def _files_of(
    episode: ExportEpisode, settings: VitraSettings, under: Mapping[str, Any]
) -> EpisodeFiles:
    episode.check()
    only_camera(episode)
    check_file_name(episode)
    camera = KnownNumbers.of(episode, CAMERA)
    if camera is None or not camera.known.all():
        raise ExportError(
            f"episode {episode.episode_id}: its cameras are not known in metres in every frame"
        )
    if not any(mano_of(side) in episode.columns for side in SIDES):
        raise ExportError(f"episode {episode.episode_id}: its hands have no MANO parameters")
    cameras = camera.values
    name = f"{settings.dataset}_{episode.episode_id}_ep_000000"
    names = {
        _ANNOTATION: f"episodic_annotations/{name}.npy",
        _VIDEO: f"videos/{episode.episode_id}.mp4",
    }
    return EpisodeFiles(
        episode.episode_id,
        digest_of(episode.digest(), under),
        len(episode),
        lambda folder: _write(episode, cameras, folder, settings),
        lambda file: names[file],
        {"vitra_id": name},
    )


def _write(
    episode: ExportEpisode, cameras: np.ndarray, folder: Path, settings: VitraSettings
) -> None:
    key = only_camera(episode)
    size, matrix, pictures = pinhole_pictures(episode, key, settings.max_side_px, centred=True)
    fps = episode.grid.fps
    video.encode(pictures, folder / _VIDEO, size, fps, settings, index_first=True)
    path = folder / _ANNOTATION
    said = np.empty((), object)
    said[()] = annotation_of(episode, cameras, matrix)
    with naming(path), path.open("wb") as file:
        np.save(file, said, allow_pickle=True)


def annotation_of(
    episode: ExportEpisode, cameras: np.ndarray, matrix: np.ndarray
) -> dict[str, Any]:
    """VITRA's dictionary of an episode. cameras: (T, 7) in the world; matrix: (3, 3)."""
    from scipy.spatial.transform import Rotation

    count, grid = len(episode), episode.grid
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = matrix_from_quaternion(cameras[:, 3:])
    poses[:, :3, 3] = cameras[:, :3]
    hands = {s: hand_of(KnownNumbers.of(episode, mano_of(s)), poses, s) for s in SIDES}
    primary = max(reversed(SIDES), key=lambda side: int(hands[side]["kept_frames"].sum()))
    there = [side for side in SIDES if hands[side]["kept_frames"].any()]
    all_of_it = (0, count)  # half open, as VITRA's loader takes it
    turns = Rotation.from_matrix(poses[:-1, :3, :3]).inv() * Rotation.from_matrix(poses[1:, :3, :3])
    return {
        "extrinsics": np.linalg.inv(poses).astype(np.float32),
        "intrinsics": matrix.astype(np.float32),
        "video_decode_frame": list(range(count)),
        "video_name": episode.episode_id,
        "avg_speed": _speed(hands[primary]),
        "total_rotvec_degree": float(np.degrees(turns.magnitude()).sum()),
        "total_transl_dist": float(_steps(poses[:, :3, 3]).sum()),
        "anno_type": primary,
        "text": {s: [(episode.task, all_of_it)] if s in there else [] for s in SIDES},
        **hands,
        "ego": {
            "episode_id": episode.episode_id,
            "provenance": json.dumps(episode.provenance, sort_keys=True),
            "source_frame": grid.frames,
            "true_time_s": grid.pts_s,
        },
    }


def _speed(hand: Mapping[str, Any]) -> float:
    """Metres that the wrist moves from a frame to the next, on average, where it is known."""
    kept = hand["kept_frames"].astype(bool)
    both = kept[1:] & kept[:-1]
    return float(_steps(hand["transl_worldspace"])[both].mean()) if both.any() else 0.0


def _steps(places: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(np.diff(places, axis=0), axis=1)
    return found


def _frame_index(parts: Sequence[FolderPart]) -> dict[str, bytes]:
    """The index of all frames: (episode, frame) pairs, and the names of the episodes."""
    members = [part.members[0] for part in parts]
    pairs = [
        np.stack([np.full(member.frames, number), np.arange(member.frames)], axis=1)
        for number, member in enumerate(members)
    ]
    data = io.BytesIO()
    np.savez(
        data,
        allow_pickle=False,
        index_frame_pair=np.concatenate([np.empty((0, 2), np.int64), *pairs]),
        index_to_episode_id=np.array([member.facts["vitra_id"] for member in members], np.str_),
    )
    return {INDEX_FILE: data.getvalue()}
