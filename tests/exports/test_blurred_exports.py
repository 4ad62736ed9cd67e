"""`--faces blur`: every format shows mosaics where faces are, and says so; it can be compulsory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from dagster_project.cli import main
from ego_assets.exports.faces.rule import KEY
from ego_assets.exports.grid import ExportError
from ego_assets.exports.settings import ContentSettings
from ego_assets.models.faces.centerface import CenterFace
from ego_assets.reading import LakeReader
from ego_assets.vision.faces.blurring import HOLD_FRAMES, covered, pixelated
from resources.environment import EnvironmentVariableError, faces_must_be_blurred
from resources.lake import Lake
from tests.exports import bars, numbered_lake
from tests.exports.bars import number_in
from tests.exports.numbered_lake import FISHEYE, MadeVideo, make
from tests.exports.test_coco import masks_of
from tests.exports.test_egodex import world_moves
from tests.exports.test_mcap import read as read_log
from tests.exports.test_webdataset import samples

FACE = np.array([[60.0, 56.0, 100.0, 96.0]])
"""Below the bars, over squares."""
FOUND = {*range(10, 15), *range(18, 23)}
"""Frames in which the finder sees it."""
BLURRED = set(range(11 - HOLD_FRAMES, 22 + HOLD_FRAMES))
HASH = "5" * 64


class Scripted:
    """Finds a face in some frames, which it knows by the bars of low bits."""

    max_side_px = 1280

    def said(self) -> dict[str, Any]:
        return {"finder": "scripted", "weights_sha256": HASH}

    def find(self, image: np.ndarray) -> np.ndarray:
        assert image.shape == (108, 192, 3)
        return FACE if number_in(image) in FOUND else np.empty((0, 4))


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CenterFace, "load", Scripted)
    monkeypatch.setattr(numbered_lake, "picture_of", picture_of)
    monkeypatch.delenv("EGO_FACES", raising=False)


def picture_of(number: int, *size: int) -> np.ndarray:
    """One that carries its number, with black and white squares where the face is."""
    picture = bars.picture_of(number, *size)
    rows, columns = np.mgrid[48:104, 52:108] // 8
    picture[48:104, 52:108] = ((rows + columns) % 2 * 235)[..., None]
    return picture


def check(picture: np.ndarray, number: int, *, lossy: float = 12) -> None:
    """A picture is that of its frame, the face a mosaic where it should be, all else as it was."""
    plain = picture_of(number)
    expected = pixelated(plain, FACE) if number in BLURRED else plain
    hidden = covered(FACE, 192, 108)
    assert np.abs(expected.astype(int) - picture)[hidden].mean() < lossy, number
    assert np.abs(plain.astype(int) - picture)[~hidden].mean() < lossy, number
    if number in BLURRED:
        off = np.abs(plain.astype(int) - picture)[hidden].mean()
        assert off > 2 * lossy, (number, off)


def check_said(provenance: dict[str, Any]) -> None:
    said = provenance["faces"]
    assert (said["shown"], said["finder"], said["weights_sha256"]) == ("blurred", "scripted", HASH)
    assert said["hold_frames"] == HOLD_FRAMES


def pictures_in(path: Any) -> list[np.ndarray]:
    with av.open(path) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_the_script_can_be_seen() -> None:
    hidden = covered(FACE, 192, 108)
    off = np.abs(pixelated(picture_of(3), FACE).astype(int) - picture_of(3))
    assert off[hidden].mean() > 24 and not off[~hidden].any()


def test_lerobot(tmp_path: Path) -> None:
    make(tmp_path, MadeVideo(count=60)).export("--faces", "blur")
    (path,) = (tmp_path / "out").rglob("*.mp4")
    shown = pictures_in(str(path))
    assert len(shown) == 60
    for number, picture in enumerate(shown):
        check(picture, number)
    (record,) = (tmp_path / "out/meta/ego_episodes").rglob("*.parquet")
    (row,) = pq.read_table(record).to_pylist()
    check_said(json.loads(row["provenance"]))


@pytest.mark.parametrize("content", ["clips", "frames"])
def test_webdataset(tmp_path: Path, content: str) -> None:
    make(tmp_path, MadeVideo(count=60)).export(
        *("--faces", "blur", "--content", content, "--threads", "1"), to="webdataset"
    )
    for sample in samples(tmp_path / "out").values():
        said = json.loads(sample["json"])
        check_said(said["provenance"])
        if content == "frames":
            picture = np.asarray(Image.open(io.BytesIO(sample["jpg"])))
            check(picture, said["source_frame"])
        else:
            for number, picture in enumerate(pictures_in(io.BytesIO(sample["mp4"]))):
                check(picture, number)


def test_coco_holds_a_face_from_frames_that_it_does_not_show(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=masks_of(video))
    lake.export("--every", "8", "--faces", "blur", to="coco")
    out = tmp_path / "out"
    images = json.loads((out / "annotations.json").read_text())["images"]
    numbers = [image["frame_index"] for image in images]
    assert 8 in numbers and 8 not in FOUND and 8 in BLURRED
    for image in images:
        picture = np.asarray(Image.open(out / "images" / image["file_name"]))
        check(picture, image["frame_index"])
    check_said(json.loads(next(out.glob("episodes/*.json")).read_text())["provenance"])


def test_mcap(tmp_path: Path) -> None:
    make(tmp_path, MadeVideo(count=60)).export("--faces", "blur", "--pictures", "jpeg", to="mcap")
    (path,) = (tmp_path / "out").rglob("*.mcap")
    log = read_log(path)
    for number, (_, message) in enumerate(log.messages["/camera/image"]):
        check(np.asarray(Image.open(io.BytesIO(message.data))), number)
    check_said(json.loads(log.said["provenance"]))


def test_egodex(tmp_path: Path) -> None:
    make(tmp_path, world_moves(60)).export("--faces", "blur", to="egodex")
    (path,) = (tmp_path / "out").rglob("*.mp4")
    for number, picture in enumerate(pictures_in(str(path))):
        check(picture, number)
    with h5py.File(path.with_suffix(".hdf5")) as file:
        check_said(json.loads(file.attrs["ego_provenance"]))


def test_faces_are_found_before_the_lens_is_undone(tmp_path: Path) -> None:
    from ego_assets.vision.lenses.undistorted import UndistortedView

    size = {"width_px": 192, "height_px": 108, "video_id": "", "uri": ""}
    view = UndistortedView.of_video(FISHEYE | size)
    make(tmp_path, MadeVideo(count=60), lens=FISHEYE).export(
        "--faces", "blur", "--undistorted", "true"
    )
    (path,) = (tmp_path / "out").rglob("*.mp4")
    shown = pictures_in(str(path))[20]
    blurred = view.picture(pixelated(picture_of(20), FACE))
    hidden = view.mask(covered(FACE, 192, 108))
    assert np.abs(blurred.astype(int) - shown)[hidden].mean() < 12
    assert np.abs(view.picture(picture_of(20)).astype(int) - shown)[hidden].mean() > 24


def test_a_folder_is_made_again_when_faces_are_to_be_blurred(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=60))
    for to in ("webdataset", "coco"):
        lake.folder = tmp_path / to
        assert lake.export(to=to)["encoded"] == 1
        assert lake.export(to=to)["encoded"] == 0
        assert lake.export("--faces", "blur", to=to)["encoded"] == 1
        assert lake.export("--faces", "blur", to=to)["encoded"] == 0


def test_another_finder_makes_another_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ego_assets.exports.lake_episodes import LakeEpisodes

    reader = LakeReader(make(tmp_path, MadeVideo(count=60)).lake)

    def made(faces: Any = "blur") -> Any:
        (episode,) = LakeEpisodes(reader, ContentSettings(faces=faces), 0)
        return episode

    first, plain = made(), made("keep")
    assert "faces" not in plain.provenance
    monkeypatch.setattr(Scripted, "said", lambda self: {"finder": "scripted", "min_score": 0.3})
    second = made()
    assert len({e.fingerprint for e in (first, second, plain)}) == 3
    assert len({e.digest() for e in (first, second, plain)}) == 3


FORMATS = ("lerobot", "webdataset", "egodex", "coco", "mcap", "egoverse", "vitra", "rerun")


@pytest.fixture(scope="module")
def lake_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield make(tmp_path_factory.mktemp("lake"), MadeVideo(count=60))


@pytest.mark.parametrize("to", FORMATS)
def test_where_it_is_compulsory_no_format_shows_faces(
    lake_of_all: Any, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_FACES", "blur")
    message = lake_of_all.export(ok=False, to=to)
    assert "EGO_FACES is blur" in message and "--faces blur" in message
    assert not (lake_of_all.folder / "out").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_a_rule_of_the_lake_holds_for_every_format_and_machine(
    lake_of_all: Any, to: str, request: pytest.FixtureRequest
) -> None:
    location = lake_of_all.lake.location
    request.addfinalizer(lambda: rule(location, "keep"))
    assert rule(location, "blur") == rule(location) == {"faces": "blur"}
    message = lake_of_all.export(ok=False, to=to)
    assert "the rule of this lake for faces is blur" in message and "--faces blur" in message
    assert not (lake_of_all.folder / "out").exists()


def rule(location: str, *faces: str) -> Any:
    arguments = ["config", "lake", "--json", "--lake", location, *(f"--faces={f}" for f in faces)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_the_command_says_what_obeys(tmp_path: Path) -> None:
    Lake(tmp_path).write_shard("s", {"files": []})
    asked = ["config", "lake", "--lake", str(tmp_path)]
    assert CliRunner().invoke(main, asked).output == "faces = keep\n"
    told = CliRunner().invoke(main, [*asked, "--faces", "blur"]).output
    assert told.startswith("faces = blur\nExports obey. Views, galleries")
    assert CliRunner().invoke(main, asked).output == told
    assert CliRunner().invoke(main, [*asked[:-1], str(tmp_path / "none")]).exit_code == 1


def test_a_rule_that_cannot_be_read_lets_nothing_out(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=60))
    lake.lake.storage.write(KEY, b'{"faces": "blurr"}')
    assert "makes no sense" in lake.export(ok=False)
    assert lake.export("--faces", "blur")["episodes"] == 1
    rule(lake.lake.location, "keep")
    (lake.folder / "out").rename(tmp_path / "blurred")
    assert lake.export()["episodes"] == 1


def test_where_it_is_compulsory_blurred_exports_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_FACES", "blur")
    lake = make(tmp_path, MadeVideo(count=60))
    assert lake.export("--faces", "blur")["episodes"] == 1


def test_the_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_FACES", "blurred")
    with pytest.raises(EnvironmentVariableError, match="EGO_FACES is 'blurred'"):
        faces_must_be_blurred()


def test_without_weights_the_export_says_what_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path / "weights"))
    lake = make(tmp_path, MadeVideo(count=60))
    message = lake.export("--faces", "blur", ok=False)
    assert "ego weights fetch faces" in message and "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_training_windows_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    from ego_assets.training import EpisodeDataset, WindowSettings

    reader = LakeReader(make(tmp_path, MadeVideo(count=60)).lake)
    with pytest.raises(ExportError, match="train from that"):
        EpisodeDataset(reader, WindowSettings(), ContentSettings(faces="blur"))
