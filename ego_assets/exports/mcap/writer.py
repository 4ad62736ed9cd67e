"""Writes an MCAP file an episode: pictures, camera, hands, robot joints and objects, each at the
time of its frame in the recording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    Progress,
    digest_of,
    write_episodes,
)
from ego_assets.exports.mcap import messages
from ego_assets.exports.mcap.log import McapLog, check_installed
from ego_assets.exports.mcap.packets import packets_of
from ego_assets.exports.mcap.settings import McapSettings
from ego_assets.exports.motion.columns import (
    CAMERA,
    OBJECT,
    KnownNumbers,
    hand_in,
    joints_in,
    objects_in,
    robot_of,
)
from ego_assets.exports.motion.lens import lens_at, only_camera
from ego_assets.exports.motion.names import check_file_name
from ego_assets.exports.pictures import jpeg, pictures_of
from ego_assets.rows import SIDES

VERSION = "1"
"""Raised when the same episode would be written otherwise."""
TIME = "nanoseconds since the first frame of the video"
SHOWN = {
    "title": "ego.Shown",
    "type": "object",
    "properties": {
        "source_frame": {"type": "integer"},
        "known": {"type": "object", "additionalProperties": {"type": "boolean"}},
    },
}
"""What a frame is, and which of its poses are known: a viewer keeps the last one of the others."""
_MCAP, _VIDEO = "episode.mcap", "episode.mp4"
_Add = Callable[[int, int], None]
"""Called with a tick and its time in nanoseconds."""


def write_mcap(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: McapSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the files of exactly these episodes, which are taken one at a time.

    They have one camera, whose intrinsics are in their provenance as `camera`, and those of the
    columns of `motion.columns` that are known. Raises ExportError for others.
    """
    settings = settings or McapSettings()
    check_installed()
    libraries = [f"{name} {version(name)}" for name in ("mcap", "foxglove-schemas-protobuf")]
    under = settings.encoded_under() | {"version": VERSION, "by": [video.LIBRARY, *libraries]}
    with ExportFolder.opened(out, "mcap") as folder:
        return write_episodes(
            folder,
            episodes,
            lambda episode: _files_of(episode, settings, under),
            under,
            provenance or {},
            progress or (lambda what, frames: None),
        )


def _files_of(
    episode: ExportEpisode, settings: McapSettings, under: Mapping[str, Any]
) -> EpisodeFiles:
    episode.check()
    only_camera(episode)
    check_file_name(episode)
    return EpisodeFiles(
        episode.episode_id,
        digest_of(episode.digest(), under),
        len(episode),
        lambda folder: _write(episode, folder / _MCAP, settings),
        lambda _: f"{episode.episode_id}.mcap",
    )


def _write(episode: ExportEpisode, path: Path, settings: McapSettings) -> None:
    times = [round(second * 1e9) for second in episode.grid.pts_s.tolist()]
    key = only_camera(episode)
    size, pictures = pictures_of(episode, key, settings.max_side_px)
    kind = "jpeg" if settings.pictures == "jpeg" else settings.codec
    with McapLog(path) as log:
        log.say("ego-assets", _said(episode))
        log.add("/instruction", messages.words(episode.task, times[0]), times[0])
        lens = lens_at(episode, size)
        calibration = messages.calibration(lens, size, times[0])
        log.add("/camera/calibration", calibration, times[0])
        adders = list(_adders(episode, log))
        coded = _coded(episode, pictures, size, path.parent / _VIDEO, settings)
        for tick, (time_ns, data) in enumerate(zip(times, coded, strict=True)):
            log.add("/camera/image", messages.picture(data, kind, time_ns), time_ns)
            for add in adders:
                add(tick, time_ns)


def _said(episode: ExportEpisode) -> dict[str, str]:
    return {
        "episode_id": episode.episode_id,
        "task": episode.task,
        "time": TIME,
        "provenance": json.dumps(episode.provenance, sort_keys=True),
    }


def _coded(
    episode: ExportEpisode,
    pictures: Iterable[np.ndarray],
    size: video.Size,
    path: Path,
    settings: McapSettings,
) -> Iterator[bytes]:
    """The pictures as JPEGs, or as packets of a video that is made beside the file."""
    if settings.pictures == "jpeg":
        yield from (jpeg(picture, settings.jpeg_quality) for picture in pictures)
        return
    video.encode(pictures, path, size, episode.grid.fps, settings)
    yield from packets_of(path, settings.codec)
    path.unlink()


def _adders(episode: ExportEpisode, log: McapLog) -> Iterator[_Add]:
    """What adds the messages of a tick, for all that the episode has."""
    known: dict[str, np.ndarray] = {}
    camera = KnownNumbers.of(episode, CAMERA)
    if camera is not None:
        known["camera"] = camera.known
        yield _transforms(log, messages.WORLD, messages.CAMERA, camera)
    for side in SIDES:
        hand = KnownNumbers.of(episode, hand_in("camera", side))
        joints = KnownNumbers.of(episode, joints_in("camera", side))
        if hand is not None and joints is not None:
            known[f"{side}_hand"] = hand.known
            yield _transforms(log, messages.CAMERA, f"{side}_hand", hand)
            yield _hand(log, side, hand, joints)
        robot = KnownNumbers.of(episode, robot_of(side))
        if robot is not None:
            known[f"{side}_robot"] = robot.known
            yield _robot(log, side, robot)
    for name in objects_in(episode.columns):
        poses = KnownNumbers.of(episode, OBJECT + name)
        assert poses is not None
        topic = re.sub(r"\W+", "_", name)
        known[f"objects/{topic}"] = poses.known
        yield _transforms(log, messages.CAMERA, f"objects/{topic}", poses)
        yield _object(log, f"/objects/{topic}", poses)
    yield _shown(log, episode.grid.frames, known)


def _shown(log: McapLog, frames: np.ndarray, known: Mapping[str, np.ndarray]) -> _Add:
    def add(tick: int, time_ns: int) -> None:
        which = {name: bool(values[tick]) for name, values in known.items()}
        value = {"source_frame": int(frames[tick]), "known": which}
        log.add_json("/shown", SHOWN, value, time_ns)

    return add


def _transforms(log: McapLog, parent: str, child: str, poses: KnownNumbers) -> _Add:
    def add(tick: int, time_ns: int) -> None:
        if poses.known[tick]:
            pose = poses.values[tick]
            log.add("/tf", messages.transform(parent, child, pose, time_ns), time_ns)

    return add


def _hand(log: McapLog, side: str, hand: KnownNumbers, joints: KnownNumbers) -> _Add:
    def add(tick: int, time_ns: int) -> None:
        points = joints.values[tick].reshape(21, 3) if joints.known[tick] else None
        if points is not None:
            found = messages.joints_in_camera(points, hand.values[tick, 3:], time_ns)
            log.add(f"/hands/{side}/joints", found, time_ns)
        log.add(f"/hands/{side}/skeleton", messages.skeleton(side, points, time_ns), time_ns)

    return add


def _robot(log: McapLog, side: str, joints: KnownNumbers) -> _Add:
    def add(tick: int, time_ns: int) -> None:
        if joints.known[tick]:
            found = messages.joint_states(joints.names or (), joints.values[tick], time_ns)
            log.add(f"/robot/{side}/joint_states", found, time_ns)

    return add


def _object(log: McapLog, topic: str, poses: KnownNumbers) -> _Add:
    def add(tick: int, time_ns: int) -> None:
        if poses.known[tick]:
            log.add(topic, messages.pose_in_camera(poses.values[tick], time_ns), time_ns)

    return add
