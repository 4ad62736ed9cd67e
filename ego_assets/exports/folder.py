"""A folder of files that an export keeps up to date, and says of itself what is in it.

Here: the index (parts, their episodes, size and hash of each file), staging of finished episodes,
publishing all at once. Not here: any file format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from ego_assets.exports.files import alone_in, is_inside, made_whole, naming
from ego_assets.exports.grid import ExportError
from ego_assets.exports.publishing import (
    STAGING,
    discard,
    finish,
    is_same_request,
    publish,
    publish_nothing,
)
from resources.lake.storage import LocalStorage

INDEX = "ego_export.json"
Progress = Callable[[str, int], None]
"""Called with what was done (`kept`, `encoded`, `resumed`, `skipped`, `joined`), and frames."""


@dataclass(frozen=True)
class ExportReport:
    """What an export did. Files are relative to the folder.

    kept: published before; resumed: encoded by an export that was stopped; skipped: {episode: why
    it is left out}, of those whose pictures cannot be read or do not fit.
    """

    episodes: int
    frames: int
    kept: int
    encoded: int
    removed: int
    written: list[str]
    deleted: list[str]
    resumed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FolderMember:
    """An episode of a part. digest: of all that its files depend on; facts: what a format adds."""

    episode_id: str
    digest: str
    frames: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FolderPart:
    """Files that change together. files: {name: [bytes, SHA-256]}, relative to the folder."""

    members: list[FolderMember]
    files: dict[str, list[Any]]


@dataclass(frozen=True)
class NewPart:
    """A part to be published. files: {name in the folder: where it lies now}."""

    members: list[FolderMember]
    files: dict[str, Path]


@dataclass(frozen=True)
class FolderIndex:
    """All of a folder: its format, how it was made, and its parts."""

    format: str
    made_under: dict[str, Any]
    provenance: Mapping[str, Any]
    parts: list[FolderPart]

    @classmethod
    def read(cls, folder: Path) -> FolderIndex | None:
        """What the folder holds; None if it is no export. Raises ExportError for another's."""
        try:
            return cls.parse((folder / INDEX).read_bytes(), str(folder / INDEX))
        except FileNotFoundError:
            return None

    @classmethod
    def parse(cls, data: bytes, where: str) -> FolderIndex:
        """What an index says. Raises ExportError for another's."""
        try:
            found = json.loads(data)
            parts = [
                FolderPart([FolderMember(**m) for m in part["members"]], part["files"])
                for part in found.pop("parts")
            ]
            for name in (name for part in parts for name in part.files):
                if not is_inside(name):
                    raise ValueError(f"it names {name!r}, which is no file of the folder")
            return cls(**found, parts=parts)
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(
                f"{where} cannot be read ({error}): another release wrote it, or it is damaged. "
                "Export to an empty folder"
            ) from error

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


class HashedFiles(Protocol):
    """Files under names: a folder, or a prefix of a bucket."""

    location: str

    def read(self, key: str) -> bytes: ...

    def size(self, key: str) -> int: ...

    def sha256(self, key: str) -> str: ...


def damaged_files(place: Path | HashedFiles) -> dict[str, str]:
    """Files of an export that are not as its index has them: {name: what is wrong}.

    Reads every byte. Raises ExportError if the place is no export with an index.
    """
    if isinstance(place, Path):
        place = LocalStorage(place)
    try:
        index = FolderIndex.parse(place.read(INDEX), f"{place.location}/{INDEX}")
    except FileNotFoundError:
        raise ExportError(
            f"{place.location} has no {INDEX}: it is no export that can be checked"
        ) from None
    wrong = {}
    for part in index.parts:
        for name, (size, digest) in part.files.items():
            try:
                if (found := place.size(name)) != size:
                    wrong[name] = f"has {found:,} bytes instead of {size:,}"
                elif place.sha256(name) != digest:
                    wrong[name] = "has other bytes than were written"
            except FileNotFoundError:
                wrong[name] = "is missing"
    return wrong


@dataclass
class ExportFolder:
    """A folder that is being brought up to date. parts: what is there, as far as it is intact."""

    out: Path
    format: str
    before: FolderIndex | None
    parts: list[FolderPart]
    _new: dict[str, Path] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def opened(cls, out: Path, kind: str) -> Iterator[ExportFolder]:
        """Keep others out, and finish what was decided before. Raises ExportError for a folder
        that holds something else."""
        with alone_in(out):
            finish(out)
            index = FolderIndex.read(out)
            if index is None and any(path.name != STAGING for path in out.iterdir()):
                raise ExportError(f"{out} holds other files: give an empty folder, or an export")
            if index and index.format != kind:
                raise ExportError(f"{out} holds an export to {index.format}, not to {kind}")
            parts = [part for part in index.parts if _is_intact(out, part)] if index else []
            yield cls(out, kind, index, parts)

    @property
    def staging(self) -> Path:
        return self.out / STAGING

    def staged(self, name: str, make: Callable[[Path], None]) -> Path:
        """The staged folder of this name, which `make` fills unless an export before has done so.

        The name is a digest of all that its content depends on.
        """
        folder = self.staging / name
        if not folder.exists():
            with made_whole(folder) as aside:
                make(aside)
        return folder

    def publish(
        self,
        kept: Sequence[FolderPart],
        new: Sequence[NewPart],
        made_under: Mapping[str, Any],
        provenance: Mapping[str, Any],
        whole: Callable[[Sequence[FolderPart]], Mapping[str, bytes]] = lambda parts: {},
        encoded: int = 0,
    ) -> ExportReport:
        """Make the folder exactly these parts, and the files that `whole` makes of all of them."""
        moves: dict[str, Path] = {}
        parts = list(kept)
        for part in new:
            files = {n: [p.stat().st_size, _hash(p)] for n, p in part.files.items()}
            parts.append(FolderPart(part.members, files))
            moves |= part.files
        parts.sort(key=lambda part: min(part.files))
        self._new = moves
        index = FolderIndex(self.format, dict(made_under), provenance, parts)
        said = whole(parts)
        for name, data in (*said.items(), (INDEX, index.text().encode())):
            self._replace(name, data, moves)
        there = {name for part in self.before.parts for name in part.files} if self.before else ()
        deletes = sorted(set(there) - {name for part in parts for name in part.files})
        if moves or deletes:
            publish(self.out, moves, deletes)
        else:
            discard(self.out)
        members = [member for part in parts for member in part.members]
        were = sum(len(part.members) for part in self.before.parts) if self.before else 0
        stayed = len(members) - encoded
        return ExportReport(
            episodes=len(members),
            frames=sum(member.frames for member in members),
            kept=stayed,
            encoded=encoded,
            removed=max(0, were - stayed),
            written=list(moves),
            deleted=deletes,
        )

    def refuse(
        self,
        skipped: Mapping[str, str],
        provenance: Mapping[str, Any],
        whole: Callable[[Sequence[FolderPart]], Mapping[str, bytes]] = lambda parts: {},
    ) -> NoReturn:
        """Raise ExportError since there is no episode to publish; see `publish_nothing`."""
        parts = self.before.parts if self.before else []
        became = publish_nothing(
            self.out,
            [INDEX, *whole([]), *(name for part in parts for name in part.files)],
            {member.episode_id for part in parts for member in part.members},
            skipped,
            is_same=self.before is None or is_same_request(self.before.provenance, provenance),
        )
        if not skipped:
            raise ExportError(f"there are no episodes: nothing was written{became}")
        first, why = next(iter(skipped.items()))
        raise ExportError(f"none of {len(skipped)} episodes can be written; {first}: {why}{became}")

    def where(self, name: str) -> Path:
        """Where a file of a part lies while `whole` is asked: published, or staged."""
        return self._new.get(name, self.out / name)

    def _replace(self, name: str, data: bytes, moves: dict[str, Path]) -> None:
        try:
            if (self.out / name).read_bytes() == data:
                return
        except FileNotFoundError:
            pass
        path = self.staging / "whole" / name
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        moves[name] = path


@dataclass(frozen=True)
class EpisodeFiles:
    """An episode whose files are its own. make: writes them to a folder; named: the name in the
    export of a file of that folder."""

    episode_id: str
    digest: str
    frames: int
    make: Callable[[Path], None]
    named: Callable[[str], str]
    facts: dict[str, Any] = field(default_factory=dict)


class NamedEpisode(Protocol):
    """An episode, as formats take it."""

    @property
    def episode_id(self) -> str: ...


Taken = TypeVar("Taken", bound=NamedEpisode)


def write_episodes(
    folder: ExportFolder,
    episodes: Iterable[Taken],
    files_of: Callable[[Taken], EpisodeFiles],
    made_under: Mapping[str, Any],
    provenance: Mapping[str, Any],
    progress: Progress,
    whole: Callable[[Sequence[FolderPart]], Mapping[str, bytes]] = lambda parts: {},
) -> ExportReport:
    """Make an opened folder the export of exactly these episodes, which have files of their own.

    files_of: how an episode is written; it and `make` raise ExportError for what cannot be written,
    which is left out. Raises ExportError if nothing is left; what is there
    and no longer wanted is deleted before.
    """
    there = {part.members[0].episode_id: part for part in folder.parts}
    kept: dict[str, FolderPart] = {}
    new: dict[str, NewPart] = {}
    skipped: dict[str, str] = {}
    for each in episodes:
        name = each.episode_id
        if name in kept or name in new or name in skipped:
            raise ExportError(f"episode {name} comes twice")
        try:
            episode = files_of(each)
        except ExportError as error:
            skipped[name] = str(error).removeprefix(f"episode {name}: ")
            progress("skipped", 0)
            continue
        found = there.get(name)
        if found and found.members[0].digest == episode.digest:
            kept[name] = found
            progress("kept", episode.frames)
            continue
        try:
            staged = folder.staged(f"parts/{episode.digest}", episode.make)
        except ExportError as error:
            skipped[name] = str(error).removeprefix(f"episode {name}: ")
            progress("skipped", episode.frames)
            continue
        member = FolderMember(name, episode.digest, episode.frames, episode.facts)
        paths = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        files = {episode.named(path.relative_to(staged).as_posix()): path for path in paths}
        new[name] = NewPart([member], files)
        progress("encoded", episode.frames)
    if not kept and not new:
        folder.refuse(skipped, provenance, whole)
    report = folder.publish(
        list(kept.values()), list(new.values()), made_under, provenance, whole, len(new)
    )
    return replace(report, skipped=skipped)


def digest_of(*said: Any) -> str:
    """A short hash of values that JSON can say."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _is_intact(folder: Path, part: FolderPart) -> bool:
    """Whether its files are there, of their sizes."""
    sizes = {name: size for name, (size, _) in part.files.items()}
    try:
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def _hash(path: Path) -> str:
    with naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
