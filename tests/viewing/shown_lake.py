"""A lake of one video whose pictures tell their numbers, and rows that tell their frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

import ego_assets.catalog
from ego_assets.reading import encode_mask
from ego_assets.robots.links import LinkTree
from resources.lake import Lake, Provenance
from resources.lake.table import SCHEMA_VERSION

SHARD, VIDEO = "20260101-0000", "00000000000000ab"
FIRST, SECOND = f"{VIDEO}-0000", f"{VIDEO}-0001"
WIDTH, HEIGHT, FRAMES, CONTEXT, CUT = 320, 240, 24, 4, 14
BARS, BAR_PX, DARK, LIGHT = 16, 12, 20, 235
RIGHT, LEFT, CUP = (f"{VIDEO}-t000-{n}" for n in ("h000", "h001", "o000"))
EPISODE, EPISODE_FRAMES = f"{VIDEO}-t000-e000006", (6, 20)
ABSENT, JUMPS, NO_CAMERA = 8, (5, 6), (3,)
"""Frames without a right hand, with one that is not valid, and without a camera."""
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / f"lake_schema_{SCHEMA_VERSION}"
PROVENANCE = Provenance(
    *("run", 1, "stage", "operator", "1", "", "input", "f", "{}", "code", "then", "host", "{}")
)


def time_of(frame: int) -> float:
    """Of a video of variable rate, in hundredths: steps of 40, 30, 50 ms."""
    return (frame // 3 * 12 + (0, 4, 7)[frame % 3]) / 100


def numbered(frame: int) -> np.ndarray:
    """A grey picture with 16 bars at its top, bright ones where a bit of the number is set."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    step = WIDTH // BARS
    for bit in range(BARS):
        picture[:BAR_PX, bit * step : (bit + 1) * step] = LIGHT if frame >> bit & 1 else DARK
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number of a picture of any size, whose bars begin at its top."""
    height = max(1, round(BAR_PX * picture.shape[1] / WIDTH))
    bars = np.array_split(picture[height // 4 : height // 2 + 1].mean(axis=(0, 2)), BARS)
    return sum(1 << bit for bit, bar in enumerate(bars) if bar.mean() > 128)


def write_numbered(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(time_of(number) * 100), Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def joints_px(frame: int, left: bool = False) -> np.ndarray:
    """(21, 2) pixels of a hand that goes to the right, 5 pixels a frame."""
    wrist = np.array([60.0 + 5 * frame, 60.0 + 110 * left])
    steps = [wrist]
    for finger in range(5):
        bones = [np.array([8 * (joint + 1), 10 * (finger - 2)]) for joint in range(4)]
        steps += [wrist + bone for bone in bones]
    return np.array(steps)


def joints_m(frame: int, left: bool = False) -> np.ndarray:
    """(21, 3) of the same hand, half a metre away."""
    flat = (joints_px(frame, left) - (160, 120)) / 300 * 0.5
    return np.column_stack([flat, np.full(21, 0.5)])


def camera_at(frame: int) -> list[float]:
    return [0.01 * frame, 0.02, 0.0]


def joints_of_robot(frame: int) -> list[float]:
    tree, _ = LinkTree.serving("ego_hand", "right", None)
    return [0.02 * frame] * len(tree.joint_names)


def mask_of(frame: int, top: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + 40, 50 + 5 * frame : 120 + 5 * frame] = True
    return mask


class ShownLake:
    """The lake, and its rows as they were published: {table: rows}, context included."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder / "lake")
        self.raw = folder / "raw" / "numbered pictures.mp4"
        self.raw.parent.mkdir(parents=True)
        write_numbered(self.raw)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        template = Lake(GOLDEN)
        self._blank = {
            name: template.read(name, "20260101-0000").to_pylist()[0] | {"shard": SHARD}
            for name in ego_assets.catalog.TABLES
        }
        self.lake.write_shard(SHARD, {"files": []})
        self._add("video_manifest", "file", [self._manifest()])
        self._add("clips", VIDEO, [self._clip(FIRST, 0, CUT), self._clip(SECOND, 10, FRAMES)])
        points = {"points": np.array([[0.0, 0.0, 2.0], [0.5, 0.25, 3.0]], np.float32)}
        self.points_uri = self.lake.publish_arrays("scene_reconstruction", SHARD, FIRST, points, 1)
        for clip in self.rows["clips"]:
            self._fill(clip)
        self._add("episodes", SHARD, [self._episode()])

    @property
    def root(self) -> str:
        return str(self.lake.location)

    def _add(self, table: str, item: str, rows: list[dict[str, Any]]) -> None:
        self.rows.setdefault(table, []).extend(rows)
        batch = ego_assets.catalog.TABLES[table].from_rows(rows)
        self.lake.publish(table, SHARD, item, batch, PROVENANCE)

    def _manifest(self) -> dict[str, Any]:
        return self._blank["video_manifest"] | {
            "video_id": VIDEO,
            "uri": str(self.raw),
            "accepted": True,
            "reject_reason": None,
            "reject_detail": None,
            "width_px": WIDTH,
            "height_px": HEIGHT,
            "frame_count": FRAMES,
            "camera_model": "PINHOLE",
            "fx_px": 300.0,
            "fy_px": 300.0,
            "cx_px": 160.0,
            "cy_px": 120.0,
            "distortion": [],
        }

    def _clip(self, name: str, start: int, end: int) -> dict[str, Any]:
        return self._blank["clips"] | {
            "video_id": VIDEO,
            "clip_id": name,
            "take_id": f"{VIDEO}-t000",
            "clip_index": int(name[-4:]),
            "index_in_take": int(name[-4:]),
            "start_frame": start,
            "end_frame": end,
            "start_pts_s": time_of(start),
            "end_pts_s": time_of(end),
            "context_frames": CONTEXT if start else 0,
        }

    def _episode(self) -> dict[str, Any]:
        """From the middle of the first clip to that of the second."""
        start, end = EPISODE_FRAMES
        return self._blank["episodes"] | {
            "video_id": VIDEO,
            "episode_id": EPISODE,
            "take_id": f"{VIDEO}-t000",
            "start_frame": start,
            "end_frame": end,
            "start_pts_s": time_of(start),
            "end_pts_s": time_of(end),
        }

    def _fill(self, clip: dict[str, Any]) -> None:
        name, start = clip["clip_id"], clip["start_frame"]
        new = start + clip["context_frames"]
        every: dict[str, list[dict[str, Any]]] = {}

        def add(table: str, frame: int, **values: Any) -> None:
            row = self._blank[table] | {"video_id": VIDEO, "clip_id": name} | values
            row |= {"frame_index": frame, "pts_s": time_of(frame), "is_context": frame < new}
            every.setdefault(table, []).append(row)

        for frame in range(start, clip["end_frame"]):
            hands = [(LEFT, "left")] if frame == ABSENT else [(RIGHT, "right"), (LEFT, "left")]
            for track, side in hands:
                self._add_hand(add, frame, track, side)
            self._add_others(add, frame, name)
        for table, rows in every.items():
            self._add(table, name, rows)
        moved = {"state": "held", "touching_side": "right", "track_id": CUP, "clip_id": name}
        moved |= {"start_frame": start, "end_frame": clip["end_frame"], "video_id": VIDEO}
        self._add("object_movements", name, [self._blank["object_movements"] | moved])

    def _add_hand(self, add: Any, frame: int, track: str, side: str) -> None:
        left = side == "left"
        is_valid = left or frame not in JUMPS
        mask = mask_of(frame, 150 if left else 40)
        size = {"height_px": HEIGHT, "width_px": WIDTH, "area_px": int(mask.sum())}
        pixels = joints_px(frame, left)
        box = [*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist()]
        hand = {"track_id": track, "side": side, "box": box}
        add("hand_masks", frame, **hand, **size, rle=encode_mask(mask), label="hand", score=0.9)
        add(
            "hand_poses",
            frame,
            **hand,
            is_valid=is_valid,
            invalid_reason=None if is_valid else "jumps",
            confidence=(frame % 10) / 10,
            joints_px=pixels.tolist(),
            joints_camera_m=joints_m(frame, left).tolist(),
            camera_from_hand_m=joints_m(frame, left)[0].tolist(),
            camera_from_hand_xyzw=[0.0, 0.0, 0.0, 1.0],
        )
        if is_valid and not left:
            tree, _ = LinkTree.serving("ego_hand", "right", None)
            add(
                "robot_mappings",
                frame,
                track_id=track,
                side=side,
                robot="ego_hand",
                joint_names=tree.joint_names,
                joint_positions=joints_of_robot(frame),
                camera_from_wrist_m=joints_m(frame)[0].tolist(),
                camera_from_wrist_xyzw=[0.0, 0.0, 0.0, 1.0],
            )

    def _add_others(self, add: Any, frame: int, clip: str) -> None:
        mask = mask_of(frame, 95)
        size = {"height_px": HEIGHT, "width_px": WIDTH, "area_px": int(mask.sum())}
        box = [50.0 + 5 * frame, 95.0, 120.0 + 5 * frame, 135.0]
        cup = {"track_id": CUP, "label": "blue/cup", "box": box, "score": 0.8}
        add("object_masks", frame, **cup, **size, rle=encode_mask(mask))
        pose = {
            f"{of}_from_object_{part}": value
            for of in ("camera", "world")
            for part, value in (("m", [0.01 * frame, 0.0, 0.6]), ("xyzw", [0.0, 0.0, 0.0, 1.0]))
        }
        add(
            "object_poses",
            frame,
            track_id=CUP,
            is_valid=True,
            invalid_reason=None,
            **pose,
        )
        there = frame not in NO_CAMERA
        add(
            "scene_reconstruction",
            frame,
            world_id=FIRST,
            is_valid=there,
            invalid_reason=None if there else "few mapped points agree",
            world_from_camera_m=camera_at(frame) if there else None,
            world_from_camera_xyzw=[0.0, 0.0, 0.0, 1.0] if there else None,
            inlier_share=0.5 if there else None,
            camera_model="PINHOLE",
            fx_px=300.0,
            fy_px=300.0,
            cx_px=160.0,
            cy_px=120.0,
            distortion=[],
            points_uri=self.points_uri if clip == FIRST else None,
        )
