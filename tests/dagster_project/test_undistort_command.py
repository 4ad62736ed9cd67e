"""`ego undistort`: files with a calibration beside them, and videos of a lake."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dagster_project.cli.program import main
from ego_assets.videos.calibration.undistorting import calibrated_camera
from tests.exports.numbered_lake import FISHEYE, MadeVideo, make, write_numbered

SIDECAR = {
    "model": "OPENCV_FISHEYE",
    "distortion": [0.02, -0.01, 0.0, 0.0],
    **{"fx": 100.0, "fy": 100.5, "cx": 94.0, "cy": 55.0},
}


def ego(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["undistort", *map(str, arguments)], catch_exceptions=False)


def written(found: Result) -> Any:
    return json.loads(found.stdout)["written"]


def test_files_are_written_and_the_others_refused_by_name(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name in ("bent", "unknown"):
        write_numbered(raw / f"{name}.mp4", 6)
    (raw / "bent.camera.json").write_text(json.dumps(SIDECAR))
    before = (raw / "bent.mp4").read_bytes()
    found = ego(raw / "unknown.mp4", raw / "bent.mp4", "--out", out, "--max-fov-deg", 60)
    assert found.exit_code == 1
    assert "6 frames, OPENCV_FISHEYE to a pinhole of fx 16" in found.stdout
    assert "unknown.mp4 has no calibration" in found.stderr
    assert "put unknown.camera.json beside it" in found.stderr
    # 30 degrees to both sides, from the middle of the first pixel to that of the last.
    assert calibrated_camera(out / "bent.mp4").fx == pytest.approx(95.5 / 0.57735, rel=1e-4)
    assert (raw / "bent.mp4").read_bytes() == before
    again = ego(raw / "bent.mp4", "--out", out, "--json")
    assert (again.exit_code, written(again)) == (1, [])
    assert "is there already" in json.loads(again.stdout)["failed"][str(raw / "bent.mp4")]


def test_what_is_said_of_footage_goes_along_and_is_heeded(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    (raw / "camera.json").write_text(json.dumps(SIDECAR))
    said = {"theirs": "withdrawn", "ours": "research_only", "unclear": "perhaps"}
    for name, consent in said.items():
        write_numbered(raw / f"{name}.mp4", 6)
        (raw / f"{name}.footage.json").write_text(json.dumps({"person": "P7", "consent": consent}))
    found = ego(*(raw / f"{name}.mp4" for name in said), "--out", out)
    assert found.exit_code == 1
    assert "its consent is withdrawn" in found.stderr and "unclear.footage.json" in found.stderr
    assert {path.name for path in out.iterdir()} == {
        *("ours.mp4", "ours.camera.json", "ours.footage.json"),
    }
    beside = json.loads((out / "ours.footage.json").read_text())
    assert beside == {"person": "P7", "consent": "research_only"}


@pytest.mark.parametrize("beside", [{}, {"consent": "granted", "site": "lab"}])
def test_what_the_lake_says_of_footage_counts_too(tmp_path: Path, beside: dict[str, str]) -> None:
    said: tuple[dict[str, Any], ...] = (
        {"consent": "withdrawn"},
        {"person": "P7", "consent": "research_only"},
    )
    videos = [MadeVideo(count=90, video_id=f"{n:016x}", said=said[n]) for n in range(2)]
    write_numbered(tmp_path / "video.mp4", 6)
    content = hashlib.sha256((tmp_path / "video.mp4").read_bytes()).hexdigest()
    made = make(
        tmp_path / "raw",
        *videos,
        lens=FISHEYE | {"sha256": content},
        write=lambda path, _: shutil.copy(tmp_path / "video.mp4", path),
    )
    for row in made.tables["video_manifest"]:
        if beside:
            Path(row["uri"]).with_suffix(".footage.json").write_text(json.dumps(beside))
    found = ego(*(v.video_id for v in videos), "--out", tmp_path / "out", "--lake", made.lake.root)
    assert found.exit_code == 1
    assert "consent is withdrawn in the lake, so it is not copied" in found.stderr
    (copied,) = (tmp_path / "out").glob("*.footage.json")
    assert json.loads(copied.read_text()) == said[1] | beside


def test_a_video_of_a_lake_is_taken_by_id_or_name(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    write_numbered(video, 90)
    content = {"sha256": hashlib.sha256(video.read_bytes()).hexdigest()}
    made = make(
        tmp_path / "raw",
        MadeVideo(count=90),
        lens=FISHEYE | content,
        write=lambda path, _: shutil.copy(video, path),
    )
    (row,) = made.tables["video_manifest"]
    for name, out in ((row["video_id"], "a"), (Path(row["uri"]).name, "b")):
        found = ego(name, "--out", tmp_path / out, "--lake", made.lake.root, "--json")
        (done,) = written(found)
        assert (found.exit_code, done["frames"]) == (0, 90)
        assert done["video"] == str(tmp_path / out / Path(row["uri"]).name)
    Path(row["uri"]).write_bytes(b"other")
    changed = ego(row["video_id"], "--out", tmp_path / "d", "--lake", made.lake.root)
    assert changed.exit_code == 1 and "not written" in changed.stderr
    both = ego(row["video_id"], "nothing.mp4", "--out", tmp_path / "c", "--lake", made.lake.root)
    assert both.exit_code == 2 and not (tmp_path / "c").exists()
    lost = ego("nothing.mp4", "--out", tmp_path / "c", "--lake", tmp_path / "no")
    assert lost.exit_code == 2 and "there is no file nothing.mp4, and there is no" in lost.stderr
    none = ego("nothing.mp4", "--out", tmp_path / "c", "--lake", made.lake.root)
    assert none.exit_code == 2 and "there is no file nothing.mp4, nor such a video" in none.stderr
