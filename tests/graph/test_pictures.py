"""Pictures of shards: kept in the lake or embedded, of a bounded size, and with a legend."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from ego_assets import catalog
from ego_assets.environment import PICTURES, VARIABLES, check_environment
from ego_assets.feature import load
from ego_assets.graph import previews
from ego_assets.media.pictures import FOLDER, Pictures
from ego_assets.media.sheets import COLUMNS, MAX_BYTES, TILE_SIDE_PX, sheet_of
from ego_assets.vision import draw
from resources.environment import EnvironmentVariableError
from resources.lake import Lake

PNG = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
SHARD = "20260101-0000"
LOG = logging.getLogger(__name__)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_the_newest_picture_is_kept_whatever_its_kind(lake: Lake) -> None:
    pictures = Pictures(lake)
    first = pictures.keep("clips", SHARD, ("image/jpeg", JPEG))
    second = pictures.keep("clips", SHARD, ("image/png", PNG))
    assert first.startswith(f"/previews/clips/{SHARD}?")
    assert first != second
    assert pictures.read("clips", SHARD) == ("image/png", PNG)
    pictures.keep("clips", "20260101-0001", ("image/jpeg", JPEG))
    assert pictures.read("clips", "latest") == ("image/jpeg", JPEG)
    assert pictures.read("clips", SHARD) == ("image/png", PNG)


def test_nothing_but_pictures_of_the_folder_is_read(lake: Lake, tmp_path: Path) -> None:
    pictures = Pictures(lake)
    pictures.keep("clips", SHARD, ("image/png", PNG))
    (tmp_path / "lake" / "secret.png").write_bytes(PNG)
    (tmp_path / "outside.png").write_bytes(PNG)
    (tmp_path / "lake" / FOLDER / "clips" / "words.png").write_text("a password")
    (tmp_path / "lake" / FOLDER / "clips" / "text.txt").write_text("a password")
    assert pictures.read("clips", SHARD) is not None
    for table, name in (
        ("..", "secret"),
        ("clips", "../../secret"),
        ("clips/../..", "secret"),
        ("clips", "../../../outside"),
        ("clips", str(tmp_path / "outside")),
        ("", f"clips/{SHARD}"),
        (".", SHARD),
        ("clips", ""),
        ("clips", "."),
        ("clips", "text.txt"),
        ("clips", "words"),
        ("clips", f"{SHARD}\0"),
        ("clips", f"{SHARD}\n"),
        ("clips", "missing"),
        ("clips", "x" * 500),
    ):
        assert pictures.read(table, name) is None, (table, name)


def test_a_served_picture_is_shown_in_place(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster shows Markdown in place up to 1,000 characters."""
    monkeypatch.setenv(PICTURES, "served")
    monkeypatch.setattr(previews, "preview", lambda *_: ("image/png", PNG))
    shown = previews.preview_metadata(lake, "clips", SHARD, LOG)["picture"].value
    assert shown.startswith(f"[![clips of shard {SHARD}](/previews/clips/{SHARD}?")
    assert len(shown) < 1000
    assert Pictures(lake).read("clips", SHARD) == ("image/png", PNG)


def test_another_server_gets_a_small_picture_embedded(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PICTURES, raising=False)
    picture = sheet_of([noise(225, 400)] * 4)
    monkeypatch.setattr(previews, "preview", lambda *_: picture)
    shown = previews.preview_metadata(lake, "clips", SHARD, LOG)["picture"].value
    assert shown.startswith(f"![clips of shard {SHARD}](data:image/jpeg;base64,")
    assert picture is not None
    assert len(picture[1]) > 2 * previews.EMBEDDED_BYTES
    assert len(shown) < 1.34 * previews.EMBEDDED_BYTES + 100
    assert not lake.storage.list(f"{FOLDER}/clips")


def test_a_picture_that_cannot_be_kept_fails_no_result(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PICTURES, "served")
    monkeypatch.setattr(previews, "preview", lambda *_: ("image/png", PNG))
    lake.storage.write(FOLDER, b"in the way")
    said = previews.preview_metadata(lake, "clips", SHARD, LOG)["picture"]
    assert said.startswith("could not be drawn: ")


def test_the_choice_of_a_person_is_checked_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PICTURES, "embeded")
    with pytest.raises(EnvironmentVariableError, match=r"give served .* or embedded"):
        check_environment()
    assert PICTURES in {variable.name for variable in VARIABLES}


def test_a_sheet_fits_the_page_and_shows_frames_large_enough_to_judge() -> None:
    media, data = sheet_of([noise(90, 160)] * 4, "a title", [((255, 0, 0), "red")]) or ("", b"")
    assert media == "image/jpeg"
    assert len(data) <= MAX_BYTES
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[:2]
    assert width == COLUMNS * (TILE_SIDE_PX + 4) - 4 <= 820
    assert TILE_SIDE_PX >= 400
    assert height > 2 * 225


def test_a_legend_names_every_colour_below_the_picture() -> None:
    image = np.full((100, 300, 3), 90, np.uint8)
    colors = ((250, 10, 10), (10, 250, 10), (10, 10, 250))
    entries = [(color, f"meaning of colour {n}, in words") for n, color in enumerate(colors)]
    made = draw.with_legend(image, "title with ünï and 漢", [*entries, (None, "long words " * 40)])
    assert made.shape[1] == 300
    start = next(y for y in range(made.shape[0]) if (made[y] == 90).all())
    assert (made[start : start + 100] == 90).all(), "the picture itself is untouched"
    assert (made[:start] > 150).any(), "a title above"
    below = made[start + 100 :]
    for color in colors:
        assert (below == color).all(axis=-1).any(), color
    assert draw.with_legend(image, "", []).shape == image.shape


@pytest.mark.parametrize("table", [t for t in catalog.TABLES if catalog.info(t).preview])
def test_every_sheet_of_frames_says_what_its_colours_mean(
    table: str,
) -> None:
    function = load(catalog.info(table).preview)
    free = function.__code__.co_freevars
    if "paint" in free:
        legend = dict(zip(free, function.__closure__, strict=True))["legend"].cell_contents
        row = defaultdict(str, label="cup", track_id="t-o001")
        assert list(legend([row])), table
