"""Episodes that do not fit, or cannot be read, are left out; the others are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from ego_assets.operator import BadInputError
from resources.raw.presence import RawAwayError
from tests.exports.bars import number_in, picture_of
from tests.exports.lerobot_reader import read, tree
from tests.exports.numbered import EGO, episode

WIDE, TALL = (64, 36), (36, 64)


def made(*names: str, size: tuple[int, int] = WIDE) -> list[ExportEpisode]:
    return [episode(name, 5, 10 * n, size=size) for n, name in enumerate(names)]


def broken(name: str, error: Exception, size: tuple[int, int] = WIDE) -> ExportEpisode:
    """An episode whose pictures end with an error."""

    def show() -> Iterator[np.ndarray]:
        yield picture_of(0, *size)
        raise error

    return episode(name, 5, 0, pictures={EGO: show})


def shape_of(folder: Path) -> tuple[int, int]:
    height, width, _ = read(folder).info["features"][EGO]["shape"]
    return width, height


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/raw/gone.mp4"),
        BadInputError("/raw/gone.mp4 does not decode"),
    ],
)
def test_an_episode_that_cannot_be_read_is_left_out_with_the_reason(
    tmp_path: Path, error: Exception
) -> None:
    told: list[str] = []
    report = write_dataset(
        tmp_path,
        [broken("bad", error), *made("a", "b")],
        progress=lambda what, _: told.append(what),
    )
    assert (report.episodes, report.encoded) == (2, 2)
    assert list(report.skipped) == ["bad"] and "/raw/gone.mp4" in report.skipped["bad"]
    assert told[:3] == ["skipped", "encoded", "encoded"]
    found = read(tmp_path)
    assert all(number_in(found.picture(row, EGO)) == row["number"] for row in found.rows)
    again = write_dataset(tmp_path, [episode("bad", 5, 0, size=WIDE), *made("a", "b")])
    assert (again.encoded, again.kept, again.skipped) == (1, 2, {})


def test_too_few_and_too_many_pictures_are_left_out(tmp_path: Path) -> None:
    few, many = (
        episode(
            f"of {n}", 5, 0, pictures={EGO: lambda n=n: (picture_of(0, *WIDE) for _ in range(n))}
        )
        for n in (4, 6)
    )
    report = write_dataset(tmp_path, [few, many, *made("a")])
    assert report.skipped == {
        "of 4": f"{EGO} has 4 pictures, and the grid 5 ticks",
        "of 6": f"{EGO} has more than 5 pictures, and the grid 5 ticks",
    }


def test_where_all_are_left_out_nothing_changes(tmp_path: Path) -> None:
    write_dataset(tmp_path, made("a"))
    before = tree(tmp_path)
    with pytest.raises(ExportError, match=r"none of the 1 episodes .*, a: .*broken"):
        write_dataset(tmp_path, [broken("a", BadInputError("broken"))])
    assert {n: v for n, v in tree(tmp_path).items() if not n.startswith(".ego")} == before


def test_where_all_are_left_out_and_one_is_gone_all_go(tmp_path: Path) -> None:
    write_dataset(tmp_path, made("a", "b"))
    with pytest.raises(ExportError, match=r"a: .*broken.* \(2\) are deleted"):
        write_dataset(tmp_path, [broken("a", BadInputError("broken"))])
    assert not tree(tmp_path)


def test_storage_that_is_away_stops_the_export(tmp_path: Path) -> None:
    away = RawAwayError(5, "the disk is not mounted", "/raw/a.mp4")
    with pytest.raises(RawAwayError, match="not mounted"):
        write_dataset(tmp_path, [*made("a"), broken("b", away)])


def test_an_episode_that_is_left_out_says_nothing_of_the_size(tmp_path: Path) -> None:
    bad = broken("bad", BadInputError("broken"), TALL)
    report = write_dataset(tmp_path, [bad, *made("a", "b")])
    assert (report.episodes, list(report.skipped)) == (2, ["bad"])
    assert shape_of(tmp_path) == WIDE


def test_episodes_that_are_gone_say_nothing_of_the_size(tmp_path: Path) -> None:
    write_dataset(tmp_path, made("a"))
    report = write_dataset(tmp_path, made("b", "c", size=TALL))
    assert (report.episodes, report.removed, report.skipped) == (2, 1, {})
    assert shape_of(tmp_path) == TALL


def test_those_that_a_stopped_export_encoded_say_nothing_of_the_size(tmp_path: Path) -> None:
    def stop(what: str, frames: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, made("a"), progress=stop)
    write_dataset(tmp_path, made("b", "c", size=TALL))
    assert shape_of(tmp_path) == TALL
    assert not (tmp_path / ".ego_export").exists()


@pytest.mark.parametrize("stays", [True, False])
def test_those_that_stay_say_more_than_those_that_are_staged(tmp_path: Path, stays: bool) -> None:
    def stop(what: str, frames: int) -> None:
        raise KeyboardInterrupt

    write_dataset(tmp_path, made("a"))
    tall = made("b", "c", size=TALL)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, tall, progress=stop)
    report = write_dataset(tmp_path, [*tall, *made("a")] if stays else tall)
    assert shape_of(tmp_path) == (WIDE if stays else TALL)
    assert (report.kept, report.resumed, len(report.skipped)) == ((1, 0, 2) if stays else (0, 1, 0))


@pytest.mark.parametrize("fit", ["refuse", "letterbox"])
def test_those_that_stay_say_the_size_wherever_they_come(tmp_path: Path, fit: str) -> None:
    settings = LeRobotSettings.model_validate({"fit": fit})
    write_dataset(tmp_path, made("a"), settings)
    tall = made("b", "c", size=TALL)
    report = write_dataset(tmp_path, [*tall, *made("a")], settings)
    assert shape_of(tmp_path) == WIDE and report.kept == 1
    assert list(report.skipped) == (["b", "c"] if fit == "refuse" else [])


def test_a_shape_that_changes_within_an_episode_is_left_out(tmp_path: Path) -> None:
    turning = episode(
        "t", 5, 0, pictures={EGO: lambda: (picture_of(0, *(TALL if n else WIDE)) for n in range(5))}
    )
    report = write_dataset(tmp_path, [turning, *made("a")])
    assert list(report.skipped) == ["t"] and report.episodes == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"preset": "bogus"}, "'bogus' is no preset of h264: give one of ultrafast"),
        ({"preset": "8"}, "'8' is no preset of h264"),
        ({"codec": "av1", "preset": "fast"}, "'fast' is no preset of av1: give one of 0, 1"),
        ({"crf": 60}, "60 is worse than h264 knows: at most 51"),
    ],
)
def test_values_that_the_encoder_does_not_know_are_refused_before(
    given: dict[str, str], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        LeRobotSettings.model_validate(given)
    assert LeRobotSettings(codec="av1", preset="8", crf=60).speed == "8"
