"""A recording says what the tables say, each row at its own frame, and nothing in between."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ego_assets.quality.failed import note_failed
from ego_assets.reading import open_lake
from ego_assets.robots.links import LinkTree
from ego_assets.viewing import notes
from ego_assets.viewing.footage import ShownClips
from ego_assets.viewing.overlay import write_overlay
from ego_assets.viewing.recording import write_recording
from ego_assets.viewing.robot_hands import BESIDE_M
from tests.viewing.shown_lake import (
    ABSENT,
    FIRST,
    FRAMES,
    JUMPS,
    NO_CAMERA,
    SECOND,
    SHARD,
    VIDEO,
    WIDTH,
    ShownLake,
    camera_at,
    joints_m,
    joints_of_robot,
    joints_px,
    mask_of,
    number_in,
    time_of,
)

SCALE = 0.5
LENS, CAMERA = "/world/camera/lens", "/world/camera"


class Recorded:
    """The columns of a recording by frame: {entity: {column: {frame: value}}}."""

    def __init__(self, path: Path) -> None:
        from rerun.chunk import RrdReader

        self.at: dict[str, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
        self.static: dict[str, dict[str, Any]] = defaultdict(dict)
        self.times: dict[int, float] = {}
        self.timelines: set[str] = set()
        for chunk in RrdReader(path).stream():
            entity = chunk.entity_path.replace("\\", "")
            batch = chunk.to_record_batch()
            if not chunk.is_static:  # nanoseconds, which Python's own type does not hold
                at = batch.schema.get_field_index("video_time")
                batch = batch.set_column(at, "video_time", batch["video_time"].cast("int64"))
            for row in batch.to_pylist():
                values = {k: v for k, v in row.items() if ":" in k}
                if chunk.is_static:
                    self.static[entity] |= values
                    continue
                self.timelines |= set(row) - set(values) - {"rerun.controls.RowId"}
                self.times[row["frame"]] = row["video_time"] / 1e9
                for name, value in values.items():
                    if name.startswith(("TextLog", "Clear")):
                        self.at[entity][name].setdefault(row["frame"], []).append(value)
                    else:
                        self.at[entity][name][row["frame"]] = value

    def column(self, entity: str, name: str) -> dict[int, Any]:
        assert entity in self.at, sorted(self.at)
        return self.at[entity][name]

    def texts(self, entity: str) -> list[tuple[int, str]]:
        lines = self.column(entity, "TextLog:text")
        return [(frame, line[0]) for frame, found in sorted(lines.items()) for line in found]


def footage_of(shown: ShownLake, *names: str, side: int = WIDTH // 2) -> ShownClips:
    lake = open_lake(shown.root)
    clips = [c for c in lake.table("clips").to_pylist() if c["clip_id"] in names]
    return ShownClips.of(lake, VIDEO, clips, side)


@pytest.fixture(scope="module")
def recorded(shown: ShownLake, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    failed = [{"check": "hands_do_not_jitter", "severity": "warn", "reason": "two jitter"}]
    note_failed(shown.lake, "hand_poses", SHARD, failed)
    path = tmp_path_factory.mktemp("recorded") / "both.rrd"
    write_recording(footage_of(shown, FIRST, SECOND), path)
    assert [p.name for p in path.parent.iterdir()] == ["both.rrd"]
    return Recorded(path)


def test_every_frame_has_its_own_picture_and_time(recorded: Recorded) -> None:
    pictures = recorded.column(f"{LENS}/picture", "EncodedImage:blob")
    assert list(pictures) == list(range(FRAMES))
    for frame, blob in pictures.items():
        picture = cv2.imdecode(np.array(blob[0], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == WIDTH * SCALE
        assert number_in(picture) == frame
        assert recorded.times[frame] == pytest.approx(time_of(frame), abs=1e-6)
    assert recorded.timelines == {"frame", "video_time"}


def test_masks_lie_where_the_rows_have_them(recorded: Recorded) -> None:
    for frame, blob in recorded.column(f"{LENS}/masks", "EncodedImage:blob").items():
        picture = cv2.imdecode(np.array(blob[0], np.uint8), cv2.IMREAD_UNCHANGED)
        tops = [95, 150] if frame == ABSENT else [40, 95, 150]
        inside = np.any([mask_of(frame, top) for top in tops], axis=0).reshape(120, 2, 160, 2)
        assert (picture[inside.all(axis=(1, 3)), 3] > 0).all()
        assert (picture[~inside.any(axis=(1, 3)), 3] == 0).all()


def test_hands_are_drawn_where_they_are_and_only_where_they_are_valid(recorded: Recorded) -> None:
    flat = recorded.column(f"{LENS}/hands/right h000/joints", "Points2D:positions")
    deep = recorded.column(f"{CAMERA}/hands/right h000/joints", "Points3D:positions")
    bones = recorded.column(f"{CAMERA}/hands/right h000/bones", "LineStrips3D:strips")
    for frame in range(FRAMES):
        if frame in (ABSENT, *JUMPS):
            assert not flat[frame], "the hand of the frame before stays in the picture"
            assert not deep[frame]
            assert not bones[frame]
            continue
        np.testing.assert_allclose(flat[frame], (joints_px(frame) + 0.5) * SCALE, atol=1e-4)
        np.testing.assert_allclose(deep[frame], joints_m(frame), atol=1e-6)
        thumb = [joints_m(frame)[joint] for joint in range(5)]
        np.testing.assert_allclose(bones[frame][0], thumb, atol=1e-6)
    left = recorded.column(f"{LENS}/hands/left h001/joints", "Points2D:positions")
    np.testing.assert_allclose(left[ABSENT], (joints_px(ABSENT, True) + 0.5) * SCALE, atol=1e-4)


def test_cameras_are_poses_and_vanish_without_one(recorded: Recorded) -> None:
    places = recorded.column(CAMERA, "Transform3D:translation")
    sizes = recorded.column(CAMERA, "Transform3D:scale")
    for frame in range(FRAMES):
        if frame in NO_CAMERA:
            assert max(sizes[frame][0]) < 1e-3
        else:
            np.testing.assert_allclose(places[frame][0], camera_at(frame), atol=1e-6)
    matrix = recorded.column(LENS, "Pinhole:image_from_camera")[0][0]
    np.testing.assert_allclose(np.reshape(matrix, (3, 3)).T[:2, 2], [80.25, 60.25])
    points = recorded.column("/world/points", "Points3D:positions")
    assert points[0] == [[0.0, 0.0, 2.0], [0.5, 0.25, 3.0]]
    gone = recorded.column("/world/points", "Clear:is_recursive")
    assert list(gone) == [14], "the second clip has no points of its own"


def test_objects_have_axes_a_path_and_their_label(recorded: Recorded) -> None:
    places = recorded.column("/world/objects/blue/cup o000", "Transform3D:translation")
    np.testing.assert_allclose(places[7][0], [0.07, 0.0, 0.6], atol=1e-6)
    assert "TransformAxes3D:axis_length" in recorded.at["/world/objects/blue/cup o000"]
    (path,) = recorded.column("/world/paths/blue/cup o000", "LineStrips3D:strips")[0]
    assert len(path) == 14
    boxes = recorded.column(f"{LENS}/boxes", "Boxes2D:centers")
    labels = recorded.column(f"{LENS}/boxes", "Boxes2D:labels")
    cup = labels[9].index("blue/cup o000")
    np.testing.assert_allclose(boxes[9][cup], [(85 + 45) * SCALE, 115 * SCALE])


def test_the_robot_moves_as_its_joints_say_beside_the_hand(recorded: Recorded) -> None:
    tree, mirrored = LinkTree.serving("ego_hand", "right", None)
    robot = f"{CAMERA}/robots/right h000 ego_hand vector"
    for name in ("index_distal", "thumb_tip", "wrist"):
        link = f"{robot}/links/{name}"
        if name not in tree.shapes.of_link:
            assert link not in recorded.at
            continue
        assert recorded.static[f"{link}/0"]["Mesh3D:vertex_positions"]
        places = recorded.column(link, "Transform3D:translation")
        for frame in (0, 9, 23):
            joints = dict(zip(tree.joint_names, joints_of_robot(frame), strict=True))
            pose = tree.hand_from_links(joints, mirrored)[name]
            np.testing.assert_allclose(places[frame][0], pose[:3, 3], atol=1e-6)
    wrists = recorded.column(robot, "Transform3D:translation")
    away = np.array(wrists[9][0]) - joints_m(9)[0]
    np.testing.assert_allclose(np.abs(away), [BESIDE_M, 0, 0], atol=1e-6)
    hidden = recorded.column(robot, "Transform3D:scale")
    assert {f for f, size in hidden.items() if max(size[0]) < 1e-3} == {ABSENT, *JUMPS}


def test_what_is_wrong_stands_on_the_timeline(recorded: Recorded) -> None:
    rows = recorded.texts("/notes/rows")
    assert (5, "right h000: not valid: jumps (frames 5 to 6)") in rows
    assert (3, "camera: not valid: few mapped points agree (frame 3)") in rows
    assert len(rows) == 2
    checks = recorded.texts("/notes/checks")
    words = f"check hands_do_not_jitter of hand_poses: two jitter (shard {SHARD})"
    assert {(0, words), (14, words)} <= set(checks)
    assert (0, "object o000: held by the right hand (frames 0 to 13)") in recorded.texts(
        "/notes/movements"
    )
    states = recorded.column("/valid/right h000", "StateChange:state")
    assert {f: s for f, s in states.items() if f < 14} == {
        0: ["valid"],
        5: ["not valid"],
        7: ["valid"],
        8: ["no row"],
        9: ["valid"],
    }
    curve = recorded.column("/confidence/right h000", "Scalars:scalars")
    assert curve[13] == [pytest.approx(0.3)]
    assert np.isnan(curve[ABSENT][0])


def test_a_clip_of_which_nothing_is_known_yet_is_shown(tmp_path: Path) -> None:
    shown = ShownLake(tmp_path)
    for table in shown.rows:
        if table not in ("video_manifest", "clips"):
            shutil.rmtree(Path(shown.root) / table)
    found = Recorded(write_recording(footage_of(shown, FIRST), tmp_path / "bare.rrd"))
    assert len(found.column(f"{LENS}/picture", "EncodedImage:blob")) == 14
    assert found.times == {frame: pytest.approx(time_of(frame), abs=1e-6) for frame in range(14)}
    assert found.column(CAMERA, "Transform3D:scale")[0] == [[1.0, 1.0, 1.0]]
    assert write_overlay(footage_of(shown, FIRST), tmp_path / "bare.mp4") == 14


def test_a_world_of_arbitrary_scale_is_said(shown: ShownLake) -> None:
    (clip,) = footage_of(shown, FIRST).read()
    assert not list(notes._scale(clip))
    clip.tables["scene_reconstruction"][0]["scale_kind"] = "arbitrary"
    ((frame, level, words),) = notes._scale(clip)
    assert (frame, level) == (0, "INFO")
    assert "arbitrary" in words


def test_a_clip_alone_has_its_context(shown: ShownLake, tmp_path: Path) -> None:
    found = Recorded(write_recording(footage_of(shown, SECOND), tmp_path / "one.rrd"))
    assert list(found.column(f"{LENS}/picture", "EncodedImage:blob")) == list(range(10, FRAMES))
