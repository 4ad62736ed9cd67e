"""From a seed to a video file, its calibration and its truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from samples.hand import capsules
from samples.raster import LIGHT, Canvas
from samples.scene import Scene
from samples.truth import FOREARMS, HANDS, Truth, runs_of, save_truth

HORIZONTAL_FOV_DEG = 72.0
AUDIO_HZ = 48_000
VISIBLE_SHARE = 0.002


def render_sample(
    out_dir: Path,
    seed: int,
    duration_s: float = 8.0,
    width: int = 640,
    height: int = 360,
    fps: float = 30.0,
    scenes: int = 1,
    name: str | None = None,
) -> Path:
    """Render a first-person video; the same arguments give the same frames and truth.

    Writes `<name>.mp4`, `<name>.camera.json` beside it, and `truth/<name>.npz`. width and height
    are even. Returns the path of the video.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    name = name or f"sample_{seed:03d}"
    path = out_dir / f"{name}.mp4"
    focal = width / 2 / np.tan(np.radians(HORIZONTAL_FOV_DEG) / 2)
    camera = {"fx": focal, "fy": focal, "cx": (width - 1) / 2, "cy": (height - 1) / 2}
    take = _Take(seed, duration_s, fps, scenes)
    record = _Record(len(take.names))
    matrix = np.array([[focal, 0, camera["cx"]], [0, focal, camera["cy"]], [0, 0, 1.0]])
    canvas = Canvas(matrix, width, height)
    images = (_paint(canvas, take, record, frame) for frame in range(take.frames))
    _encode(path, images, width, height, fps, take)
    calibration = {"model": "PINHOLE", "width": width, "height": height} | camera
    path.with_suffix(".camera.json").write_text(json.dumps(calibration))
    save_truth(path, record.truth(take, width, height, camera))
    return path


class _Take:
    """The scenes of a video one after the other."""

    def __init__(self, seed: int, duration_s: float, fps: float, count: int) -> None:
        self.fps = fps
        self.frames = max(1, round(duration_s * fps))
        rng = np.random.default_rng([seed, 77])
        inner = [
            round(self.frames * (k + rng.uniform(-0.12, 0.12)) / count) for k in range(1, count)
        ]
        self.starts = [0, *inner]
        ends = [*inner, self.frames]
        self.scenes = [
            Scene(np.random.default_rng([seed, number]), (end - start) / fps)
            for number, (start, end) in enumerate(zip(self.starts, ends, strict=True))
        ]
        self.names = [
            f"scene_{n}_{box.name}" for n, scene in enumerate(self.scenes) for box in scene.boxes
        ]
        self.first_object = np.cumsum([0, *(len(s.boxes) for s in self.scenes)])
        self.noise = np.random.default_rng([seed, 99])

    def at(self, frame: int) -> tuple[int, Scene, float]:
        """(number, scene, time in the scene) of a frame."""
        number = int(np.searchsorted(self.starts, frame, side="right")) - 1
        return number, self.scenes[number], (frame - self.starts[number]) / self.fps

    def onsets_s(self) -> list[float]:
        return [
            self.starts[n] / self.fps + t
            for n, scene in enumerate(self.scenes)
            for t in scene.contact_times_s
        ]


@dataclass
class _Record:
    """Truth, frame by frame."""

    objects: int
    cameras: list[np.ndarray] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)
    contacts: list[np.ndarray] = field(default_factory=list)
    areas: list[np.ndarray] = field(default_factory=list)
    runs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def truth(self, take: _Take, width: int, height: int, camera: dict[str, float]) -> Truth:
        joints = np.stack(self.joints)
        pixels = joints / joints[..., 2:]
        joints_px = np.stack(
            [
                camera["fx"] * pixels[..., 0] + camera["cx"],
                camera["fy"] * pixels[..., 1] + camera["cy"],
            ],
            axis=-1,
        )
        areas = np.stack(self.areas)
        limit = VISIBLE_SHARE * width * height
        counts = np.array([len(starts) for starts, _ in self.runs])
        return Truth(
            fps=take.fps,
            width=width,
            height=height,
            **camera,
            frame_count=take.frames,
            pts_s=np.arange(take.frames) / take.fps,
            cuts=take.starts[1:],
            world_from_camera=np.stack(self.cameras),
            object_names=take.names,
            world_from_object=np.stack(self.poses),
            object_visible=areas[:, 1 : 1 + self.objects] > 0,
            hand_visible=areas[:, HANDS : HANDS + 2] >= limit,
            joints_camera_m=joints,
            joints_px=joints_px,
            contacts=np.stack(self.contacts),
            contact_onsets_s=take.onsets_s(),
            run_starts=np.concatenate([starts for starts, _ in self.runs]),
            run_values=np.concatenate([values for _, values in self.runs]),
            run_frames=np.r_[0, np.cumsum(counts)].astype(np.int64),
        )


def _paint(canvas: Canvas, take: _Take, record: _Record, frame: int) -> np.ndarray:
    """Draw one frame and record its truth. Returns (H, W, 3) uint8."""
    number, scene, t = take.at(frame)
    world_from_camera = scene.world_from_camera(t)
    camera_from_world = np.linalg.inv(world_from_camera)
    canvas.clear()
    for plane in scene.planes:
        canvas.draw_plane(plane, camera_from_world, 0)
    first = int(take.first_object[number])
    poses = np.full((record.objects, 4, 4), np.nan)
    contacts = np.zeros((2, record.objects), bool)
    for index, box in enumerate(scene.boxes):
        poses[first + index] = scene.world_from_object(index, t)
        contacts[:, first + index] = [scene.contact(side, index, t) for side in (0, 1)]
        for plane in box.planes(poses[first + index]):
            canvas.draw_plane(plane, camera_from_world, 1 + first + index)
    light = camera_from_world[:3, :3] @ LIGHT
    joints = np.stack(
        [_paint_hand(canvas, scene, side, t, camera_from_world, light) for side in (0, 1)]
    )
    record.cameras.append(world_from_camera)
    record.poses.append(poses)
    record.contacts.append(contacts)
    record.joints.append(joints)
    record.areas.append(np.bincount(canvas.ids.ravel(), minlength=256))
    record.runs.append(runs_of(canvas.ids))
    # A lens blurs edges a little, and a sensor is never silent.
    image: np.ndarray = cv2.GaussianBlur(canvas.image, (3, 3), 0.55)
    grain = take.noise.normal(0, 2.0, (canvas.height, canvas.width)).astype(np.float32)
    return np.clip(image + grain[..., None], 0, 255).astype(np.uint8)


def _paint_hand(
    canvas: Canvas,
    scene: Scene,
    side: int,
    t: float,
    camera_from_world: np.ndarray,
    light: np.ndarray,
) -> np.ndarray:
    """Draw hand, forearm and sleeve. Returns the (21, 3) joints in the camera."""
    rotation, translation = camera_from_world[:3, :3], camera_from_world[:3, 3]
    joints: np.ndarray = scene.joints(side, t) @ rotation.T + translation
    for start, end, one, other in capsules(joints, scene.hand_scale):
        canvas.draw_capsule(start, end, (one, other), scene.skin, HANDS + side, light)
    elbow = rotation @ scene.elbow(side, t) + translation
    cuff = joints[0] + 0.30 * (elbow - joints[0])
    canvas.draw_capsule(joints[0], cuff, (0.024, 0.029), scene.skin * 0.98, FOREARMS + side, light)
    for piece in range(4):  # in pieces: what is behind the camera is left out
        start, end = (cuff + x * (elbow - cuff) for x in (piece / 4, (piece + 1) / 4))
        canvas.draw_capsule(start, end, (0.037, 0.039), scene.sleeve, HANDS + 2, light)
    return joints


def _encode(
    path: Path, images: Iterator[np.ndarray], width: int, height: int, fps: float, take: _Take
) -> None:
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        video: Any = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # mbtree reads memory that it has not set: with it, runs differ.
        video.options = {"crf": "17", "preset": "veryfast", "g": "60", "x264-params": "mbtree=0"}
        audio: Any = container.add_stream("aac", rate=AUDIO_HZ, layout="mono")
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(_sound(take)[None], format="fltp", layout="mono")
        sound.rate = AUDIO_HZ
        container.mux(audio.encode(sound))
        container.mux(audio.encode())


def _sound(take: _Take) -> np.ndarray:
    """(N,) float32: faint noise, and a short knock at every contact."""
    count = int(take.frames / take.fps * AUDIO_HZ)
    wave = take.noise.normal(0, 0.002, count).astype(np.float32)
    ticks = np.arange(int(0.06 * AUDIO_HZ)) / AUDIO_HZ
    knock = np.exp(-ticks / 0.012) * np.sin(2 * np.pi * 420 * ticks)
    for onset in take.onsets_s():
        start = int(onset * AUDIO_HZ)
        end = min(start + len(knock), count)
        if start < count:
            wave[start:end] += (0.4 * knock[: end - start]).astype(np.float32)
    return wave
