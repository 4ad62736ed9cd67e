"""Writes a LeRobot data set (version 3), or brings one up to date.

The folder says itself what is in it (`meta/ego_provenance.json`: packs, their episodes and digests,
sizes of files). What is there and has not changed is left alone to the byte. New episodes get files
of their own; files that held an episode which changed or is gone are joined again from what remains
in them. An export that was killed goes on: encoded episodes wait in the staging folder.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.files import UNFINISHED, alone_in, made_whole, naming, remove
from ego_assets.exports.folder import ExportReport, Progress
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot import packs, statistics, tables
from ego_assets.exports.lerobot.contents import (
    INFO,
    PROVENANCE,
    STATS,
    TASKS,
    DatasetContents,
    is_name_of_ours,
    names_of,
)
from ego_assets.exports.lerobot.numbering import Numbering
from ego_assets.exports.lerobot.packs import Encoded, PackFiles, Record
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.publishing import (
    PLAN,
    STAGING,
    discard,
    finish,
    is_same_request,
    publish,
    publish_nothing,
)

VERSION = "1"
"""Raised when the same episode would be written otherwise."""


def write_dataset(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: LeRobotSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the data set of exactly these episodes.

    They are taken one at a time, and need to fit together: one rate, one set of columns and
    cameras. Those whose pictures cannot be read, or have another shape, are left out. provenance:
    what the data set comes from (lake, version of the code), as JSON; if it differs each time, so
    does the file it is kept in. Raises ExportError for episodes that do not fit, or if all are left
    out, and OSError with the path of a file that cannot be written.
    """
    settings = settings or LeRobotSettings()
    with alone_in(out):
        finish(out, is_name_of_ours)
        return _Export(
            out, settings, provenance or {}, progress or (lambda what, frames: None)
        ).run(episodes)


@dataclass
class _Export:
    out: Path
    settings: LeRobotSettings
    provenance: Mapping[str, Any]
    progress: Progress
    before: DatasetContents | None = None
    features: dict[str, Any] = field(default_factory=dict)
    fps: int = 0
    encoded: int = 0
    resumed: int = 0
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    _has_size: bool = False
    """Whether an episode that is wanted has pictures of `sizes`; others do not bind."""
    _is_undecided: bool = False
    """Whether what is staged has another size than what is published: if something published
    stays, it counts, and else what is staged."""
    _put_off: list[tuple[ExportEpisode, str]] = field(default_factory=list)
    _waiting: list[Encoded] = field(default_factory=list)
    _new: list[PackFiles] = field(default_factory=list)
    _staged: dict[str, Encoded] | None = None

    def run(self, episodes: Iterable[ExportEpisode]) -> ExportReport:
        self._begin()
        wanted: dict[str, str] = {}
        there = self.before.intact(self.out) if self.before else {}
        for episode in episodes:
            digest = self._check(episode)
            if episode.episode_id in wanted:
                raise ExportError(f"episode {episode.episode_id} comes twice")
            wanted[episode.episode_id] = digest
            if there.get(episode.episode_id) == digest:
                self._keep_size()
                self.kept += 1
                self.progress("kept", len(episode))
            else:
                self._take(episode, digest)
        self._take_those_put_off()
        if len(self.skipped) == len(wanted):
            self._refuse()
        self._close()
        return self._publish({i: d for i, d in wanted.items() if there.get(i) == d})

    def _refuse(self) -> NoReturn:
        packs = self.before.packs if self.before else []
        became = publish_nothing(
            self.out,
            [PROVENANCE, INFO, STATS, TASKS, *(name for pack in packs for name in pack.sizes)],
            {member.episode_id for pack in packs for member in pack.episodes},
            self.skipped,
            is_same=self.before is None or is_same_request(self.before.provenance, self.provenance),
        )
        if not self.skipped:
            raise ExportError(f"there are no episodes: nothing was written{became}")
        name, why = next(iter(self.skipped.items()))
        raise ExportError(
            f"none of the {len(self.skipped)} episodes can be exported: nothing was written. The "
            f"first, {name}: {why}{became}"
        )

    def _begin(self) -> None:
        """Look at what is there, published and staged."""
        self.before = DatasetContents.read(self.out)
        if self.before is None and any(p.name != STAGING for p in self.out.iterdir()):
            raise ExportError(f"{self.out} holds other files: give an empty folder, or an export")
        self.encoded_under = self.settings.encoded_under() | {"version": VERSION}
        kept = (
            self.before.sizes
            if self.before and self.before.encoded_under == self.encoded_under
            else {}
        )
        self.plan = self.out / STAGING / PLAN
        plan = json.loads(self.plan.read_text()) if self.plan.exists() else {}
        if (plan.get("encoded_under"), plan.get("by")) != (self.encoded_under, video.LIBRARY):
            discard(self.out)
            plan = {"sizes": kept}
        self.sizes: dict[str, video.Size] = {k: (w, h) for k, (w, h) in plan["sizes"].items()}
        self._is_undecided = bool(kept) and plan["sizes"] != kept

    def _check(self, episode: ExportEpisode) -> str:
        """Raise ExportError unless the episode fits the others. Returns its digest."""
        episode.check()
        tables.check_keys(episode)
        features = tables.features_of(episode, {})
        if not self.features:
            self.features, self.fps = features, episode.grid.fps
        if episode.grid.fps != self.fps:
            raise ExportError(
                f"episode {episode.episode_id} has {episode.grid.fps} frames a second, others have "
                f"{self.fps}: a data set has one rate. Choose one for all grids"
            )
        if features != self.features:
            differ = {
                k for k in features | self.features if features.get(k) != self.features.get(k)
            }
            raise ExportError(
                f"episode {episode.episode_id} has other columns than those before it: "
                + ", ".join(sorted(differ))
            )
        text = json.dumps([episode.digest(), self.encoded_under], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _take(self, episode: ExportEpisode, digest: str, may_wait: bool = True) -> None:
        """Encode an episode by itself, unless an export that was killed has done so."""
        if self._is_undecided:
            self._put_off.append((episode, digest))
            return
        if self._staged is None:
            self._staged = dict(self._look_at_staging(list(episode.pictures)))
        if found := self._staged.get(digest):
            self._has_size = True
            self.resumed += 1
            self.progress("resumed", len(episode))
            self._add(found)
            return
        try:
            self._add(self._encode(episode, digest))
        except ExportError as error:
            if isinstance(error, video.OtherShapeError) and may_wait and not self._has_size:
                self._put_off.append((episode, digest))
            else:
                self._skip(episode, error)

    def _skip(self, episode: ExportEpisode, error: ExportError) -> None:
        self.skipped[episode.episode_id] = str(error).removeprefix(
            f"episode {episode.episode_id}: "
        )
        self.progress("skipped", len(episode))

    def _keep_size(self) -> None:
        """An episode that is published stays, so others have its size."""
        if self._is_undecided and self.before:
            discard(self.out)
            self.sizes = {k: (w, h) for k, (w, h) in self.before.sizes.items()}
            self._is_undecided = False
        self._has_size = True

    def _take_those_put_off(self) -> None:
        """Take those that waited until it is known whether anything has the size of before."""
        waiting, self._put_off = self._put_off, []
        if self._is_undecided:
            self._is_undecided = False
            for episode, digest in waiting:
                self._take(episode, digest)
            waiting, self._put_off = self._put_off, []
        if waiting and not self._has_size:
            # Nothing that is wanted has the old size, so nothing staged is wanted either.
            discard(self.out)
            self.sizes, self._staged = {}, {}
        for episode, digest in waiting:
            self._take(episode, digest, may_wait=False)

    def _encode(self, episode: ExportEpisode, digest: str) -> Encoded:
        folder = self.out / STAGING / "parts" / digest
        with made_whole(folder) as aside:
            files = PackFiles.within(aside, list(episode.pictures))
            counters, sizes = {}, dict(self.sizes)
            for key, path in files.videos.items():
                counters[key] = self._encode_pictures(episode, key, path, sizes)
            rows = tables.rows_of(episode)
            packs.write_rows(files.rows, iter([rows]))
            packs.write_records(files.records, [_record(episode, digest, files, counters)])
            if sizes != self.sizes or not self.plan.exists():
                self.sizes = sizes
                self._save_plan()
        self._has_size = True
        self.encoded += 1
        self.progress("encoded", len(episode))
        return PackFiles.within(folder, list(episode.pictures)).encoded()[0]

    def _look_at_staging(self, cameras: list[str]) -> Iterator[tuple[str, Encoded]]:
        staging = self.out / STAGING
        for folder in (*staging.glob("packs/*"), *staging.glob("parts/*")):
            files = PackFiles.within(folder, cameras)
            if folder.suffix != UNFINISHED and files.are_there:
                for encoded in files.encoded():
                    yield encoded.record.digest, encoded

    def _encode_pictures(
        self, episode: ExportEpisode, key: str, path: Path, sizes: dict[str, video.Size]
    ) -> statistics.PictureCounter:
        """Encode the pictures of a camera. sizes: of cameras; the first picture of all says."""
        counter = statistics.PictureCounter(len(episode))
        incoming = episode.show(key)
        first = next(incoming, None)
        if first is None:
            raise ExportError(f"episode {episode.episode_id}: {key} has no pictures")
        size = first.shape[1], first.shape[0]
        sizes.setdefault(key, video.target_size(size, self.settings.max_side_px))
        pictures = video.resized(
            itertools.chain([first], incoming),
            sizes[key],
            self.settings.fit == "letterbox" and (self._has_size or key not in self.sizes),
        )
        count = video.encode(
            counter.watch(itertools.islice(pictures, len(episode) + 1)),
            path,
            sizes[key],
            self.fps,
            self.settings,
        )
        if count != len(episode):
            more = "more than " if count > len(episode) else ""
            count = min(count, len(episode))
            raise ExportError(
                f"episode {episode.episode_id}: {key} has {more}{count} pictures, and the grid "
                f"{len(episode)} ticks"
            )
        return counter

    def _save_plan(self) -> None:
        """Say what the episodes in the staging folder were encoded under."""
        aside = self.plan.with_suffix(".unfinished")
        with naming(self.plan):
            self.plan.parent.mkdir(exist_ok=True)
            plan = {"encoded_under": self.encoded_under, "by": video.LIBRARY, "sizes": self.sizes}
            aside.write_text(json.dumps(plan))
            aside.replace(self.plan)

    def _add(self, encoded: Encoded) -> None:
        """Let an episode wait for others that share its files."""
        limits = dict.fromkeys(encoded.videos, self.settings.video_file_mb * 2**20)
        limits[packs.ROWS] = self.settings.data_file_mb * 2**20
        if not packs.have_room([c.record for c in (*self._waiting, encoded)], limits, self.fps):
            self._close()
        self._waiting.append(encoded)

    def _close(self) -> None:
        """Join those that wait, and remove their own files."""
        if self._waiting:
            self._new.append(self._join(self._waiting))
            parts = self.out / STAGING / "parts"
            for encoded in self._waiting:
                remove(parts / encoded.record.digest)
            self._waiting = []

    def _join(self, episodes: list[Encoded]) -> PackFiles:
        name = packs.name_of([encoded.record.digest for encoded in episodes])
        files = packs.join_pack(episodes, self.out / STAGING / "packs" / name, self.fps)
        self.progress("joined", sum(encoded.record.frames for encoded in episodes))
        return files

    def _publish(self, kept: Mapping[str, str]) -> ExportReport:
        """Number all packs, and replace the files that differ."""
        before = self.before.packs if self.before else []
        aside = self.out / STAGING / "numbered"
        shutil.rmtree(aside, ignore_errors=True)
        numbering = Numbering(self.out, aside, self.features, self.sizes, self.fps, self.settings)
        for pack in before:
            remain = {e.digest for e in pack.episodes if kept.get(e.episode_id) == e.digest}
            files = names_of(pack.number, self._cameras).files(self.out)
            if len(remain) == len(pack.episodes):
                numbering.add(pack.number, files, pack)
            elif remain:
                stay = [encoded for encoded in files.encoded() if encoded.record.digest in remain]
                numbering.add(pack.number, self._join(stay), None)
        first = max((pack.number for pack in before), default=-1) + 1
        for number, files in enumerate(self._new, first):
            numbering.add(number, files, None)
        numbering.finish(self.encoded_under, self.provenance)
        deletes = sorted({name for pack in before for name in pack.sizes} - numbering.names)
        if numbering.moves or deletes:
            publish(self.out, numbering.moves, deletes)
        else:
            discard(self.out)
        return ExportReport(
            episodes=numbering.episodes,
            frames=numbering.frames,
            kept=self.kept,
            encoded=self.encoded,
            resumed=self.resumed,
            removed=sum(len(pack.episodes) for pack in before) - self.kept,
            skipped=self.skipped,
            written=list(numbering.moves),
            deleted=deletes,
        )

    @property
    def _cameras(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]


def _record(
    episode: ExportEpisode,
    digest: str,
    files: PackFiles,
    counters: Mapping[str, statistics.PictureCounter],
) -> Record:
    numbers = tables.numbers_of(tables.rows_of(episode))
    stats = {k: statistics.of_rows(v) for k, v in numbers.items() if k not in tables.FIXED}
    stats |= {k: statistics.of_pictures(c.bins, c.pictures) for k, c in counters.items()}
    sizes = {key: path.stat().st_size for key, path in files.videos.items()}
    return Record(
        episode_id=episode.episode_id,
        digest=digest,
        task=episode.task,
        frames=len(episode),
        provenance=episode.provenance,
        sizes=sizes | {packs.ROWS: files.rows.stat().st_size},
        stats=stats,
        bins={key: counter.bins.tolist() for key, counter in counters.items()},
    )
