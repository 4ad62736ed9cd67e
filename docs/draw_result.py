"""Draws the moving picture of the README: a real video through the real graph, and what came out.

`python docs/draw_result.py VIDEO LAKE [PICTURE]`, after `ego run VIDEO --lake LAKE`. Three panels:
the video, its hand masks and joints, and the robot hand in the pose that mimics the hand.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pinocchio as pin
from PIL import Image
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ego_assets.reading import LakeReader, decode_mask, open_lake  # noqa: E402
from ego_assets.robots.robot_hands import find_robot  # noqa: E402
from ego_assets.vision.draw import draw_hand, overlay_mask, side_color  # noqa: E402

CROP = (460, 60, 1120, 720)
"""left, top, right, bottom in pixels of the video."""
SIDE_PX = 320
FIRST, LAST, EVERY = 0, 270, 4
FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
GROUND = (24, 26, 30)


class Robot:
    """A robot hand of boxes, drawn as a camera sees it."""

    def __init__(self, name: str, side: str) -> None:
        urdf = str(find_robot(name).urdf(side)[0])
        self.model = pin.buildModelFromUrdf(urdf)
        self.shapes = pin.buildGeomFromUrdf(self.model, urdf, pin.GeometryType.VISUAL)

    def draw(self, image: np.ndarray, row: dict[str, Any], camera: np.ndarray) -> None:
        data, placed = self.model.createData(), self.shapes.createData()
        q = pin.neutral(self.model)
        for joint, value in zip(row["joint_names"], row["joint_positions"], strict=True):
            q[self.model.joints[self.model.getJointId(joint)].idx_q] = value
        pin.updateGeometryPlacements(self.model, data, self.shapes, placed, q)
        turn = Rotation.from_quat(row["camera_from_wrist_xyzw"]).as_matrix()
        faces = []
        for shape, place in zip(self.shapes.geometryObjects, placed.oMg, strict=True):
            corners = CORNERS * shape.geometry.halfSide
            corners = corners @ place.rotation.T + place.translation
            corners = corners @ turn.T + row["camera_from_wrist_m"]
            faces += [corners[list(face)] for face in FACES]
        for face in sorted(faces, key=lambda f: -f[:, 2].mean()):  # the far ones first
            normal = np.cross(face[1] - face[0], face[2] - face[0])
            light = abs(normal @ [0.3, -0.5, -0.8]) / np.linalg.norm(normal)
            pixels = face @ camera.T
            flat = np.round(pixels[:, :2] / pixels[:, 2:] * 8).astype(np.int32)
            shade = tuple(int(c * (0.35 + 0.65 * light)) for c in (190, 198, 210))
            cv2.fillConvexPoly(image, flat, shade, cv2.LINE_AA, shift=3)
            cv2.polylines(image, [flat], True, (60, 64, 72), 1, cv2.LINE_AA, shift=3)


def panels(lake: LakeReader, video: Path) -> list[np.ndarray]:
    """The frames of the moving picture."""
    manifest = {r["uri"]: r for r in lake.table("video_manifest").to_pylist()}[str(video)]
    left, top, right, _ = CROP
    scale = SIDE_PX / (right - left)
    crop = np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])
    fx, fy, cx, cy = (manifest[f"{n}_px"] for n in ("fx", "fy", "cx", "cy"))
    camera = crop @ np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    rows: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for table in ("hand_masks", "hand_poses", "robot_mappings"):
        for row in lake.table(table, context=False).to_pylist():
            if row["video_id"] == manifest["video_id"]:
                rows[table, row["frame_index"]].append(row)
    robots = {side: Robot("ego_hand", side) for side in ("left", "right")}
    shown = []
    for clip in lake.table("clips").to_pylist():
        if clip["video_id"] != manifest["video_id"]:
            continue
        for frame in lake.frames(clip, context=False):
            at = frame.index
            if not FIRST <= at < LAST or at % EVERY:
                continue
            given = cv2.warpAffine(frame.image, crop[:2], (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA)
            found, mimic = given.copy(), np.full_like(given, GROUND)
            for row in rows["hand_masks", at]:
                mask = decode_mask(row["rle"], row["height_px"], row["width_px"]).astype(np.uint8)
                small = cv2.warpAffine(mask, crop[:2], (SIDE_PX, SIDE_PX), flags=cv2.INTER_NEAREST)
                overlay_mask(found, small > 0, side_color(row["side"]))
            for row in rows["hand_poses", at]:
                if row["is_valid"]:
                    joints = np.array(row["joints_px"]) @ crop[:2, :2].T + crop[:2, 2]
                    draw_hand(found, joints, side_color(row["side"]))
            for row in rows["robot_mappings", at]:
                robots[row["side"]].draw(mimic, row, camera)
            shown.append(np.hstack([given, found, mimic]))
    return shown


def main() -> None:
    video, lake = Path(sys.argv[1]).resolve(), open_lake(sys.argv[2])
    target = Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "docs" / "pictures" / "result.webp"
    first, *others = (Image.fromarray(p) for p in panels(lake, video))
    duration_ms = round(1000 * EVERY / 30)
    first.save(
        target,
        save_all=True,
        append_images=others,
        duration=duration_ms,
        loop=0,
        quality=55,
        method=6,
    )
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
