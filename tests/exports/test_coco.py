"""`ego export coco`: pycocotools reads the masks, boxes and keypoints of the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from ego_assets.exports.coco.settings import CocoSettings
from ego_assets.exports.coco.writer import AnnotatedEpisode, write_coco
from ego_assets.vision.rle import encode_mask, mask_box
from tests.exports.bars import number_in, picture_of
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import MadeVideo, make, poses_of

SIZE = (108, 192)


def blob(frame: int, track: str) -> np.ndarray:
    """A mask that tells its frame and track."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    x, y = 30 + frame, 30 + 8 * (ord(track[-1]) % 5)
    return np.asarray((rows - y) ** 2 + 2 * (columns - x) ** 2 < 200)


def mask_row(base: dict[str, Any], label: str) -> dict[str, Any]:
    mask = blob(base["frame_index"], base["track_id"])
    return base | {
        "label": label,
        "score": 0.8,
        "box": mask_box(mask),
        "area_px": int(mask.sum()),
        "height_px": SIZE[0],
        "width_px": SIZE[1],
        "rle": encode_mask(mask),
        "backend": "made",
        "quality_tier": "baseline",
    }


def masks_of(video: MadeVideo, label: str = "cup") -> dict[str, list[dict[str, Any]]]:
    """Rows of both mask tables: those of hands have poses, an object is in every frame."""
    keys = ("video_id", "shard", "clip_id", "frame_index", "pts_s", "is_context", "track_id")
    hands = [
        mask_row({k: pose[k] for k in keys}, "hand")
        | {"side": pose["side"], "is_wearer": True, "keypoints_px": None}
        for pose in poses_of(video)
    ]
    right = [pose for pose in poses_of(video) if pose["side"] == "right"]
    objects = [
        mask_row({k: pose[k] for k in keys} | {"track_id": f"{video.video_id}-o000"}, label)
        for pose in right
    ]
    return {"hand_masks": hands, "object_masks": objects}


def both(*videos: MadeVideo) -> dict[str, list[dict[str, Any]]]:
    rows = [masks_of(video) for video in videos]
    return {name: [row for of in rows for row in of[name]] for name in rows[0]}


def test_pycocotools_reads_what_the_tables_have(tmp_path: Path) -> None:
    video = MadeVideo(count=90)
    video.is_valid[40] = False
    lake = make(tmp_path, video, more=masks_of(video))
    report = lake.export("--every", "20", to="coco")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 5, {})
    out = tmp_path / "out"
    data = COCO(str(out / "annotations.json"))
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == [
        "left hand",
        "right hand",
        "cup",
    ]
    assert len(data.dataset["annotations"]) == 5 * 3
    rows = {
        (row["frame_index"], row["track_id"]): row
        for table in ("hand_masks", "object_masks")
        for row in lake.tables[table]
    }
    poses = {(p["frame_index"], p["track_id"]): p for p in lake.tables["hand_poses"]}
    for image in data.loadImgs(data.getImgIds()):
        frame = image["frame_index"]
        picture = np.asarray(Image.open(out / "images" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        assert number_in(picture) == frame and frame % 20 == 0
        for found in data.loadAnns(data.getAnnIds(imgIds=image["id"])):
            row = rows.pop((frame, found["track_id"]))
            mask = data.annToMask(found)
            assert np.array_equal(mask, blob(frame, row["track_id"]))
            assert found["area"] == row["area_px"] == int(masks.area(data.annToRLE(found)))
            assert found["bbox"] == masks.toBbox(data.annToRLE(found)).tolist()
            if found["category_id"] == 3:
                assert "keypoints" not in found
                continue
            name = data.loadCats(found["category_id"])[0]["name"]
            assert name == f"{row['side']} hand"
            pose = poses[frame, found["track_id"]]
            assert len(found["keypoints"]) == 63
            if frame == 40:  # the pose is not valid
                assert found["num_keypoints"] == 0 and not any(found["keypoints"])
                continue
            seen = 0
            for n, (x, y) in enumerate(pose["joints_px"]):
                inside = 0 <= x < SIZE[1] and 0 <= y < SIZE[0]
                seen += inside
                expected = [np.float32(x), np.float32(y), 2] if inside else [0, 0, 0]
                assert found["keypoints"][3 * n : 3 * n + 3] == expected
            assert found["num_keypoints"] == seen > 0
    hand = data.loadCats(2)[0]
    named = [(hand["keypoints"][a - 1], hand["keypoints"][b - 1]) for a, b in hand["skeleton"]]
    assert named[4:6] == [("wrist", "index_1"), ("index_1", "index_2")] and len(named) == 20


def test_objects_may_be_left_out_and_bad_sizes_are_named(tmp_path: Path) -> None:
    video, other = MadeVideo(count=60), MadeVideo(count=60, video_id="00000000000000b2")
    rows = both(video, other)
    for row in rows["hand_masks"]:
        if row["video_id"] == other.video_id:
            row["width_px"] = 200
    report = make(tmp_path, video, other, more=rows).export(
        "--objects", "false", "--every", "30", to="coco"
    )
    assert list(report["skipped"].values()) == [
        "masks of frame 0 are of 200x108, the video of 192x108"
    ]
    data = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(data["annotations"]) == 4 and len(data["categories"]) == 2


def annotated(name: str, first: int, label: str = "cup", **changes: Any) -> AnnotatedEpisode:
    """Three pictures that count from `first`, each with an object."""
    frames = range(first, first + 3)

    def pictures() -> Iterator[tuple[int, np.ndarray]]:
        return ((n, picture_of(n)) for n in frames)

    rle = encode_mask(blob(3, "a")).decode()
    rows = [
        {
            "frame_index": n,
            "category": label,
            "segmentation": {"size": list(SIZE), "counts": rle},
            "area": 1,
            "bbox": [0, 0, 1, 1],
            "iscrowd": 0,
        }
        for n in frames
    ]
    images = [{"frame_index": n, "width": 192, "height": 108} for n in frames]
    made = AnnotatedEpisode(name, name, images, rows, pictures, {"video_id": name})
    return replace(made, **changes)


def refuse() -> Any:
    raise AssertionError("it is decoded again")


def test_episodes_come_and_go_and_numbers_stay_true(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotated("a", 10), annotated("b", 20, "bowl")])
    before = tree(tmp_path)
    kept = annotated("b", 20, "bowl", pictures=refuse)
    report = write_coco(tmp_path, [annotated("a", 10, pictures=refuse), kept])
    assert report.written == [] and tree(tmp_path) == before
    report = write_coco(tmp_path, [kept, annotated("c", 30)])
    assert (report.kept, report.encoded, report.removed) == (1, 1, 1)
    data = COCO(str(tmp_path / "annotations.json"))
    assert {path.parent.name for path in (tmp_path / "images").rglob("*.jpg")} == {"b", "c"}
    shown = {}
    for row in data.loadAnns(data.getAnnIds()):
        image = data.loadImgs(row["image_id"])[0]
        picture = np.asarray(Image.open(tmp_path / "images" / image["file_name"]))
        shown[number_in(picture)] = data.loadCats(row["category_id"])[0]["name"]
    assert shown == {**dict.fromkeys(range(20, 23), "bowl"), **dict.fromkeys(range(30, 33), "cup")}


def test_words_alone_that_change_are_written_again(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotated("a", 10)])
    report = write_coco(tmp_path, [annotated("a", 10, "mug")])
    assert (report.encoded, report.removed) == (1, 1)
    report = write_coco(tmp_path, [annotated("a", 10, "mug")], CocoSettings(jpeg_quality=50))
    assert report.encoded == 1
