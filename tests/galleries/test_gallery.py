"""A gallery has a video of each clip, what fails first, and renders only what changed."""

from __future__ import annotations

import re
from pathlib import Path

import av
import pytest

from ego_assets.galleries.files import GalleryFiles, is_of_video
from ego_assets.galleries.gallery import HEIGHT_PX, GalleryReport, Which, make_gallery
from ego_assets.quality.failed import note_failed
from resources.ledger import Ledger
from tests.viewing.shown_lake import CONTEXT, CUT, FIRST, FRAMES, SECOND, SHARD, VIDEO, ShownLake


class Gallery:
    """The gallery of a lake with two clips."""

    def __init__(self, folder: Path) -> None:
        self.shown = ShownLake(folder)
        self.lake = self.shown.lake
        self.ledger = Ledger.of(self.lake.location)
        self.ledger.open()
        self.folder = self.lake.root / "_galleries" / SHARD

    def make(self, which: Which = "all") -> GalleryReport:
        return make_gallery(self.lake, self.ledger, SHARD, which)

    @property
    def page(self) -> str:
        return (self.folder / "index.html").read_text()

    @property
    def order(self) -> list[str]:
        return re.findall(r'id="([^"]+)"', self.page)

    def video(self, clip: str) -> Path:
        (found,) = self.folder.glob(f"{clip}.*.mp4")
        return found

    def give_up(self, table: str, item: str, why: str) -> None:
        """Put a clip into quarantine."""
        self.ledger.expect(table, SHARD, [(item, VIDEO)])
        attempt = self.ledger.start(table, item, fingerprint="f", worker="w", run_id="r")
        words = {"error_class": "BadInputError", "error": why}
        self.ledger.fail(table, item, attempt, **words, quarantine=True)

    def spoil(self, clip: str) -> None:
        """Publish other rows of hands for a clip: none is valid."""
        rows = [r for r in self.shown.rows["hand_poses"] if r["clip_id"] == clip]
        spoilt = [r | {"is_valid": False, "invalid_reason": "jumps"} for r in rows]
        self.shown._add("hand_poses", clip, spoilt)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path)


def test_each_clip_has_a_small_video_that_browsers_play(gallery: Gallery) -> None:
    report = gallery.make()
    assert (report.clips, report.rendered, report.failing, report.faults) == (2, 2, 0, {})
    assert report.rendered_s > 0
    for clip, frames in ((FIRST, CUT), (SECOND, FRAMES - CUT + CONTEXT)):
        path = gallery.video(clip)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
            told = context.colorspace, context.color_primaries, context.color_trc
            assert [int(each) for each in told] == [1, 1, 1]
            assert stream.height <= HEIGHT_PX + 80 <= 480
            assert sum(1 for _ in container.decode(video=0)) == frames
        data = path.read_bytes()
        assert data.find(b"moov") < data.find(b"mdat"), "a browser has to load all of it first"
        assert path.with_suffix(".jpg").read_bytes().startswith(b"\xff\xd8\xff")
    # Relative, so that the page works wherever its folder is opened.
    links = re.findall(r'(?:src|poster)="([^"]+)"', gallery.page)
    assert sorted(links) == sorted(p.name for p in gallery.folder.iterdir() if p.suffix != ".html")
    lanes = "from above: hands, camera, objects, robots:"
    for words in ("left hand", "right hand", "joints", "x axis", "not valid", "no row", lanes):
        assert words in gallery.page.split('class="cards"')[0], "the legend"


def test_what_fails_comes_first_with_its_reasons(gallery: Gallery) -> None:
    gallery.make()
    assert gallery.order == [FIRST, SECOND]
    gallery.give_up("hand_poses", SECOND, "no <b>hand</b>\nTraceback")
    gallery.give_up("video_manifest", "/raw/broken & bent.mp4", "not a video")
    report = gallery.make()
    assert (report.failing, report.rendered, report.kept) == (1, 0, 2)
    assert gallery.order == [SECOND, FIRST]
    general, first = gallery.page.split(f'id="{SECOND}"')
    assert "broken &amp; bent.mp4: video_manifest in quarantine: not a video" in general
    card = first.split(f'id="{FIRST}"')[0]
    assert "hand_poses in quarantine: no &lt;b&gt;hand&lt;/b&gt;</li>" in card
    assert 'class="card error"' in general.split('class="cards"')[1]


def test_a_failed_check_is_told_at_the_clips_that_it_names(gallery: Gallery) -> None:
    gallery.spoil(SECOND)
    failed = {"check": "hands_are_valid", "severity": "error", "reason": "few <i>are</i> valid"}
    note_failed(gallery.lake, "hand_poses", SHARD, [failed])
    gallery.make("none")
    assert gallery.order == [SECOND, FIRST]
    general, rest = gallery.page.split(f'id="{SECOND}"')
    assert "check hands_are_valid of hand_poses: few &lt;i&gt;are&lt;/i&gt; valid" in general
    assert "check hands_are_valid of hand_poses:" in rest.split(f'id="{FIRST}"')[0]
    assert "check hands_are_valid" not in rest.split(f'id="{FIRST}"')[1]


def test_only_a_clip_whose_rows_changed_is_rendered_again(gallery: Gallery) -> None:
    gallery.make()
    before = {clip: gallery.video(clip) for clip in (FIRST, SECOND)}
    written = before[FIRST].stat().st_mtime_ns
    report = gallery.make()
    assert (report.rendered, report.kept, report.removed) == (0, 2, 0)
    gallery.spoil(SECOND)
    report = gallery.make()
    assert (report.rendered, report.kept, report.removed) == (1, 1, 2)
    assert gallery.video(FIRST).stat().st_mtime_ns == written
    assert gallery.video(SECOND) != before[SECOND]
    assert not before[SECOND].exists()
    before[FIRST].with_suffix(".jpg").unlink()  # as a killed run leaves it
    assert (gallery.make().rendered, gallery.make().rendered) == (1, 0)


def test_a_raw_file_that_moved_is_not_rendered_again(gallery: Gallery) -> None:
    gallery.make()
    moved = gallery.shown.raw.parent / "elsewhere" / gallery.shown.raw.name
    moved.parent.mkdir()
    gallery.shown.raw.rename(moved)
    manifest = gallery.shown.rows["video_manifest"][0] | {"uri": str(moved)}
    gallery.shown._add("video_manifest", "file", [manifest])
    assert (gallery.make().rendered, gallery.make().kept) == (0, 2)


def test_failing_clips_alone_may_have_videos(gallery: Gallery) -> None:
    gallery.give_up("hand_poses", SECOND, "no hand")
    assert gallery.make("failing").rendered == 1
    assert gallery.video(SECOND).exists()
    assert not list(gallery.folder.glob(f"{FIRST}*"))
    assert gallery.order == [SECOND, FIRST]
    report = gallery.make("none")
    assert (report.rendered, report.removed) == (0, 2)
    assert gallery.page.count("no video") == 2


def test_a_raw_file_that_cannot_be_read_is_told_and_fails_nothing(gallery: Gallery) -> None:
    gallery.shown.raw.write_bytes(b"no video")
    report = gallery.make()
    assert (report.rendered, set(report.faults)) == (0, {FIRST, SECOND})
    assert gallery.page.count("no video: BadInputError") == 2
    assert [p.name for p in gallery.folder.iterdir()] == ["index.html"]


def test_names_lead_nowhere_else(gallery: Gallery) -> None:
    files = GalleryFiles(gallery.lake)
    name = f"{FIRST}.{0:016x}.mp4"
    assert files.key(SHARD, name) == f"_galleries/{SHARD}/{name}"
    for shard, other in (
        ("..", "index.html"),
        (SHARD, "../index.html"),
        (SHARD, "x.html"),
        (SHARD, f"{FIRST}.mp4"),
        (SHARD, f"{name}\n"),
        (f"{SHARD}/..", name),
        ("", name),
        (SHARD, ""),
    ):
        assert files.key(shard, other) is None, (shard, other)


def test_what_is_of_a_video_is_known_by_its_name() -> None:
    def ours(key: str) -> bool:
        return is_of_video(key, {SHARD}, VIDEO)

    assert ours(f"_galleries/{SHARD}/{FIRST}.{0:016x}.mp4")
    assert ours(f"_galleries/other/{FIRST}.{0:016x}.jpg")
    assert ours(f"_galleries/{SHARD}/index.html")
    assert not ours("_galleries/other/index.html")
    assert not ours(f"_galleries/{SHARD}/00000000000000ac-0000.{0:016x}.mp4")
    assert not ours(f"clips/{SHARD}/{FIRST}.mp4")
