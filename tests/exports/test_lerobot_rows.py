"""Every row of an export finds its own picture, however the episodes were made and joined."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from ego_assets.exports.grid import make_grid
from ego_assets.exports.lerobot import packs
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import DataSet, read
from tests.exports.numbered import EGO, SIDE, episode, with_words


def assert_rows_show_themselves(found: DataSet) -> None:
    for row in found.rows:
        assert number_in(found.picture(row, EGO)) == row["number"]
        if SIDE in found.cameras:
            assert number_in(found.picture(row, SIDE)) == 65535 - row["number"]


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_rows_find_their_pictures_in_several_files_of_two_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.setattr(packs, "MAX_SECONDS", 2.5)
    made = [episode(f"e{n}", 23 + 7 * n, 1000 * n, cameras=(EGO, SIDE)) for n in range(5)]
    write_dataset(tmp_path, made, LeRobotSettings(codec=codec))
    found = read(tmp_path)
    files = {found.video_of(e, EGO) for e in found.episodes}
    assert len(files) == 4
    assert {row["number"] for row in found.rows} == {
        1000 * n + k for n in range(5) for k in range(23 + 7 * n)
    }
    assert_rows_show_themselves(found)


def test_a_source_of_29_97_frames_a_second_is_brought_onto_30(tmp_path: Path) -> None:
    pts = np.arange(1100) * 1001 / 30000
    grid = make_grid(np.arange(1100), pts)
    assert (grid.fps, len(grid)) == (30, 1101)
    write_dataset(tmp_path, [episode("ntsc", 0, 0, grid=grid, size=(64, 36))])
    found = read(tmp_path)
    rows = found.rows[::50] + found.rows[-40:]
    assert all(abs(row["true_time_s"] - row["timestamp"]) <= 1 / 60 + 1e-6 for row in found.rows)
    for row in rows:
        assert number_in(found.picture(row, EGO)) == row["number"] == row["source_frame"]


def test_begins_of_episodes_are_counted_and_do_not_drift(tmp_path: Path) -> None:
    made = [episode(f"e{n:02d}", 3 + n % 5, 10 * n, size=(64, 36)) for n in range(60)]
    write_dataset(tmp_path, made)
    found = read(tmp_path)
    begin = 0
    for row in found.episodes:
        assert row[f"videos/{EGO}/from_timestamp"] == begin / 30
        begin += row["length"]
        assert row[f"videos/{EGO}/to_timestamp"] == begin / 30
    assert_rows_show_themselves(found)


def test_joined_videos_have_one_constant_rate_and_no_reordering(tmp_path: Path) -> None:
    write_dataset(tmp_path, [episode(f"e{n}", 20 + n, 100 * n, fps=24) for n in range(4)])
    found = read(tmp_path)
    with av.open(str(found.video_of(found.episodes[0], EGO))) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == stream.base_rate == 24
        assert (stream.start_time, stream.frames) == (0, 20 + 21 + 22 + 23)
        assert stream.codec_context.pix_fmt == "yuv420p"
        context = stream.codec_context
        tags = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        assert tags == (1, 1, 1, 1)
        packets = [p for p in container.demux(stream) if p.size]
        assert [p.pts for p in packets] == [p.dts for p in packets]
        ticks = [p.pts * stream.time_base * 24 for p in packets if p.pts is not None]
        assert ticks == list(range(len(packets)))
        begins = np.cumsum([0, *(e["length"] for e in found.episodes)])[:-1]
        assert all(packets[n].is_keyframe for n in begins)


def test_colours_come_out_as_they_went_in(tmp_path: Path) -> None:
    patch = np.full((72, 128, 3), (200, 60, 30), np.uint8)
    write_dataset(tmp_path, [episode("e", 5, 0, pictures={EGO: lambda: iter([patch] * 5)})])
    found = read(tmp_path)
    shown = found.picture(found.rows[2], EGO)
    assert np.abs(shown.astype(int) - patch).max() <= 4


def test_a_small_picture_is_shrunk_and_another_shape_refused_or_given_bars(tmp_path: Path) -> None:
    wide, tall = (episode(n, 4, 7, size=s) for n, s in (("w", (320, 180)), ("t", (180, 320))))
    settings = LeRobotSettings(max_side_px=160)
    report = write_dataset(tmp_path / "refused", [wide, tall], settings)
    assert (report.episodes, list(report.skipped)) == (1, ["t"])
    assert "180x320 in a data set of 160x90" in report.skipped["t"]
    assert "letterbox" in report.skipped["t"]
    settings = LeRobotSettings(max_side_px=160, fit="letterbox")
    write_dataset(tmp_path / "bars", [wide, tall], settings)
    found = read(tmp_path / "bars")
    assert found.info["features"][EGO]["shape"] == [90, 160, 3]
    shown = found.picture(found.rows[-1], EGO)
    assert shown[:, :40].max() < 20 and shown[:, -40:].max() < 20 and shown[60, 80].max() > 60


def test_words_are_declared_and_lie_on_their_rows(tmp_path: Path) -> None:
    plain = episode("e", 12, 0)
    write_dataset(tmp_path, [episode("e", 12, 0, **with_words(plain))])
    found = read(tmp_path)
    for key in ("language_persistent", "language_events"):
        assert found.info["features"][key] == {"dtype": "language", "shape": [1], "names": None}
    persistent = [[w["content"] for w in row["language_persistent"]] for row in found.rows]
    assert persistent == [["reach", "lift"]] * 12
    assert [w["timestamp"] for w in found.rows[0]["language_persistent"]] == [0, np.float32(0.2)]
    events = [row["language_events"] for row in found.rows]
    assert [len(e) for e in events] == [0, 0, 0, 1] + [0] * 8
    assert events[3][0]["camera"] == EGO


def test_tasks_are_the_index_of_a_pandas_frame(tmp_path: Path) -> None:
    write_dataset(tmp_path, [episode("e", 3, 0), episode("ee", 3, 0)])
    schema = pq.read_schema(tmp_path / "meta/tasks.parquet")
    assert schema.pandas_metadata["index_columns"] == ["task"]
    assert read(tmp_path).tasks == ["pick up thing 1", "pick up thing 0"]
