"""Makes the gallery of a shard: the videos that are missing, then the page.

A video is named after what it shows, so that a clip whose rows did not change is not rendered
again. What cannot be rendered is told on the page, and fails nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ego_assets import catalog
from ego_assets.galleries.files import FOLDER, PAGE, GalleryFiles
from ego_assets.galleries.page import Card, Trouble, gallery_page
from ego_assets.galleries.troubles import given_up, of_check, of_item
from ego_assets.media.video_writer import write_mp4
from ego_assets.quality.failed import failed_checks
from ego_assets.reading import LakeReader
from ego_assets.reviews.fingerprints import Fingerprints
from ego_assets.reviews.subjects import FactTeller, Subject, subjects_of_shard
from ego_assets.viewing.footage import ShownClips
from ego_assets.viewing.overlay import overlay_frames
from ego_assets.vision import draw
from resources.lake import Lake
from resources.ledger import Ledger
from resources.processes.owned_folders import temporary_folder

VERSION = "1"
"""Of how clips are drawn: raise it when they are to be rendered again."""
HEIGHT_PX, WIDTH_PX = 400, 640
"""A picture is at most so large; words and lanes below it come on top."""
POSTER_BYTES = 20_000
Which = Literal["all", "failing", "none"]
"""Clips that have a video; the page names all of them."""
WHICH: tuple[Which, ...] = get_args(Which)


@dataclass
class GalleryReport:
    """What was made. rendered_s: of video; seconds: what that took; faults: of videos that could
    not be made, by clip."""

    clips: int = 0
    failing: int = 0
    rendered: int = 0
    kept: int = 0
    removed: int = 0
    rendered_s: float = 0.0
    seconds: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)


def make_gallery(
    lake: Lake,
    ledger: Ledger,
    shard: str,
    which: Which = "all",
    tell: Callable[[str], None] = lambda _: None,
) -> GalleryReport:
    """Bring the gallery of a shard up to date. Raises LakeError, OSError."""
    with lake.storage.lock(f"{FOLDER}.{shard}"):
        return _Gallery(lake, ledger, shard).make(which, tell)


class _Gallery:
    def __init__(self, lake: Lake, ledger: Ledger, shard: str) -> None:
        self.lake, self.shard = lake, shard
        self.files = GalleryFiles(lake)
        self.reader = LakeReader(lake)
        self.teller = FactTeller(lake)
        manifest = lake.read("video_manifest", shard).to_pylist()
        self.videos = {row["video_id"]: row for row in manifest if row["accepted"]}
        self.rejected = [row for row in manifest if not row["accepted"]]
        self.failed = [c for c in failed_checks(lake, catalog.TABLES) if c["shard"] == shard]
        self.troubles: dict[str, list[Trouble]] = defaultdict(list)
        """Of the ledger, by clip, or by what is no clip."""
        for entry, trouble in given_up(ledger, shard):
            self.troubles[entry.item_id].append(trouble)

    def make(self, which: Which, tell: Callable[[str], None]) -> GalleryReport:
        report, there = GalleryReport(), self.files.names(self.shard)
        _, prints = Fingerprints(self.lake).of("clip", self.shard)
        subjects = list(subjects_of_shard(self.lake, "clip", self.shard, self.failed))
        cards = []
        for subject in subjects:
            report.clips += 1
            card = Card(subject.name, self.teller.facts(subject), tuple(self._troubles(subject)))
            report.failing += card.fails
            if which == "all" or (which == "failing" and card.fails):
                stem = f"{subject.name}.{self._digest(subject, prints[subject.name])}"
                try:
                    self._video(subject, stem, there, report)
                    card.stem = stem
                except Exception as error:  # whatever it is, it is of this clip
                    card.fault = f"{type(error).__name__}: {error}"
                    report.faults[subject.name] = card.fault
                    tell(f"no video of clip {subject.name}: {card.fault}")
            cards.append(card)
        page = gallery_page(self.shard, cards, list(self._general(subjects)))
        self.lake.storage.write(f"{FOLDER}/{self.shard}/{PAGE}", page.encode())
        named = {f"{card.stem}{end}" for card in cards for end in (".mp4", ".jpg")}
        gone = self.files.names(self.shard) - named - {PAGE}
        self.files.remove(self.shard, gone)
        report.removed = len(gone)
        return report

    def _troubles(self, subject: Subject) -> Iterator[Trouble]:
        yield from self.troubles.get(subject.name, ())
        for fault in subject.faults:
            words = f"check {fault.check} of {fault.table}: {fault.what}"
            yield Trouble(fault.severity, words)

    def _general(self, subjects: list[Subject]) -> Iterator[Trouble]:
        """What is wrong, and of no clip that has a card."""
        for row in self.rejected:
            words = f"{row['reject_reason']}: {row['reject_detail'] or ''}"
            yield Trouble("error", f"{Path(row['uri']).name} was rejected: {words}")
        cards = {subject.name for subject in subjects}
        told = {row["uri"] for row in self.rejected}
        for item in sorted(self.troubles.keys() - cards - told):
            yield from (of_item(item, self.shard, trouble) for trouble in self.troubles[item])
        yield from map(of_check, self.failed)

    def _digest(self, subject: Subject, rows: str) -> str:
        video = dict(self.videos.get(subject.row["video_id"], {}))
        video["uri"] = Path(video.get("uri", "")).name  # wherever it lies
        size = HEIGHT_PX, WIDTH_PX
        said = json.dumps([VERSION, size, rows, video], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _video(self, subject: Subject, stem: str, there: set[str], report: GalleryReport) -> None:
        if {f"{stem}.mp4", f"{stem}.jpg"} <= there:
            report.kept += 1
            return
        began = time.monotonic()
        video = self.videos[subject.row["video_id"]]
        side = round(_shrunk(video) * max(video["width_px"], video["height_px"]))
        footage = ShownClips.of(self.reader, subject.name, [dict(subject.row)], side)
        shown: list[np.ndarray] = []
        middle = (subject.row["end_frame"] - subject.row["start_frame"]) // 2

        def frames() -> Iterator[tuple[float, np.ndarray]]:
            for number, found in enumerate(overlay_frames(footage, legend=False)):
                if number in (0, middle):
                    shown[:] = [found[1]]
                yield found

        with temporary_folder() as folder:
            path = folder / "clip.mp4"
            write_mp4(path, frames())
            storage = self.lake.storage
            storage.write(f"{FOLDER}/{self.shard}/{stem}.mp4", path.read_bytes())
        poster = draw.encode_jpeg(shown[0], POSTER_BYTES)
        storage.write(f"{FOLDER}/{self.shard}/{stem}.jpg", poster)
        report.rendered += 1
        report.rendered_s += subject.row["end_pts_s"] - subject.row["start_pts_s"]
        report.seconds += time.monotonic() - began


def _shrunk(video: Mapping[str, Any]) -> float:
    """By how much pictures of a video are shrunk."""
    return float(min(1.0, HEIGHT_PX / video["height_px"], WIDTH_PX / video["width_px"]))
