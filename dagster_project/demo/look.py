"""Shows an episode at the end of the demo: in Rerun's viewer, as far as this machine has what that
needs, else as a plain video and a frame of it. Nothing is downloaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from dagster_project.cli.names import find_clips
from dagster_project.demo.chromium import BrowserError, find_chromium, picture_of_page
from ego_assets.media.video_writer import write_mp4
from ego_assets.reading import LakeReader
from ego_assets.viewing.footage import ShownClips
from ego_assets.viewing.overlay import overlay_frames
from resources.lake import Lake
from resources.processes.owned_folders import temporary_folder

SIDE_PX = 640
BLANK_SHARE = 0.8
"""Of the view of the picture that has the colour of its edge: then the picture is not there yet."""


def show_episode(lake: Lake, episode: str, out: Path, say: Callable[[str], None]) -> None:
    """Write what shows an episode into the folder `out`, and say what that is and what opens it.

    Raises BadInputError, FileNotFoundError if its raw video cannot be read.
    """
    reader = LakeReader(lake)
    footage = ShownClips.of(reader, episode, find_clips(reader, episode), SIDE_PX)
    out.mkdir(parents=True, exist_ok=True)
    why_not = "pip install 'ego-assets[view]' brings the viewer"
    if find_spec("rerun") is not None:
        from ego_assets.viewing.recording import write_recording

        recording, picture = out / "episode.rrd", out / "episode_in_viewer.png"
        write_recording(footage, recording)
        say(f"Recording of episode {episode}: {recording}")
        why_not = _picture_of_viewer(recording, picture)
        if not why_not:
            say(f"The episode in the viewer: {picture}")
    if why_not:
        say(f"No picture of the viewer: {why_not}")
        video, still = out / "episode.mp4", out / "episode.png"
        _write_plain(footage, video, still)
        say(f"The episode as a plain video: {video}, and a frame of it: {still}")
    command = f"ego view {episode} --lake {shlex.quote(lake.location)}"
    say(f"Look at it in the browser: {command}")


def _picture_of_viewer(recording: Path, picture: Path) -> str:
    """Take a picture of the viewer. Returns why there is none, or nothing."""
    from dagster_project.web.viewer import ViewerMissingError, ViewerServer

    program = find_chromium()
    if program is None:
        return "there is no Chromium on this machine"
    with temporary_folder() as folder:
        profile = folder / "chromium"
        profile.mkdir()
        try:
            with ViewerServer(recording, folder) as server, server.in_background():
                picture.write_bytes(picture_of_page(program, server.url, profile, is_drawn))
        except (BrowserError, ViewerMissingError, OSError) as error:
            return str(error)
    return ""


def is_drawn(png: bytes) -> bool:
    """Whether the viewer shows the frame of the video: its view, the upper left one, is not mostly
    empty."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return False
    height, width = image.shape[:2]
    view = image[height // 8 : height // 2, : width // 2]
    ground = view[len(view) // 2, 2]
    return bool((view == ground).all(axis=-1).mean() < BLANK_SHARE)


def _write_plain(footage: ShownClips, video: Path, still: Path) -> None:
    middle = sum(clip["end_frame"] - clip["start_frame"] for clip in footage.clips) // 2

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for number, found in enumerate(overlay_frames(footage)):
            if number in (0, middle):
                still.write_bytes(cv2.imencode(".png", found[1][:, :, ::-1])[1].tobytes())
            yield found

    write_mp4(video, frames())
