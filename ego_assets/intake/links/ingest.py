"""Fetches lists of links into the raw lake, and records what came of each.

A link is fetched aside, checked, sealed, published under a name that nothing had, and recorded;
whoever is killed in between goes on from there. Several may fetch the same list at once: a link is
for one of them at a time. Not here: one try (`fetch`, `pages`), lists (`lists`), rows (`records`).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from http.cookiejar import CookieJar, LoadError, MozillaCookieJar
from pathlib import Path

from ego_assets.intake.links.addresses import check_url
from ego_assets.intake.links.content import ContentReader, name_of, stem_of
from ego_assets.intake.links.fetch import Fetcher
from ego_assets.intake.links.lists import Link
from ego_assets.intake.links.outcome import Got, IngestError, LinkError, RefusedError, State
from ego_assets.intake.links.pace import Job, Throttle, Turns
from ego_assets.intake.links.pages import PageFetcher
from ego_assets.intake.links.parts import LinkBusyError, LinkPart, PartState
from ego_assets.intake.links.records import LinkFiles, LinkRow, Recorder, now
from ego_assets.intake.links.settings import IngestSettings
from ego_assets.intake.links.sidecars import license_expression, says, sidecar_of_link
from resources.lake import Lake
from resources.raw import tombstones
from resources.raw.additions import RawTarget, open_target
from resources.raw.sidecars import read_own_footage_sidecar

BUSY_S = 1.0
"""Until a link is looked at again that another process fetches."""
MOST_BACKOFF_S = 300.0
FORGOTTEN = "it holds a video that was forgotten (`ego forget`)"
"""It is not asked for again."""
_LOOKERS = 16
Tell = Callable[[LinkRow], None]


@dataclass(frozen=True)
class Rules:
    """What a person allows. cookies: a file of Netscape's format; with_pages: ask yt-dlp."""

    settings: IngestSettings = field(default_factory=IngestSettings)
    allow_private: bool = False
    with_pages: bool = False
    cookies: Path | None = None


@dataclass
class Ingested:
    """How many links there are in each state, of those that were asked for; there: of the done,
    those that were there before."""

    counts: Counter[str]
    there: int


def ingest(
    links: Iterable[Link], place: str, lake: Lake, rules: Rules, tell: Tell = lambda row: None
) -> Ingested:
    """Fetch links into a folder or a prefix of S3. tell: what came of each, as it comes.

    Raises IngestError if nothing more can be fetched; OSError, or what S3 raises, if the place
    cannot be used. What was fetched until then is there, and recorded.
    """
    wanted = {link.id: link for link in links}
    with ExitStack() as stack:
        work = _Work(stack, open_target(place), lake, rules, tell)
        jobs = work.jobs(wanted)
        work.run(jobs)
    rows = work.files.newest()
    return Ingested(Counter(rows[i].state if i in rows else "pending" for i in wanted), work.there)


class _Work:
    """One run over some links."""

    def __init__(
        self, stack: ExitStack, target: RawTarget, lake: Lake, rules: Rules, tell: Tell
    ) -> None:
        settings = rules.settings
        self._target, self._lake, self._settings, self._tell = target, lake, settings, tell
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        jar, cookies = read_cookies(rules.cookies)
        self._fetcher = Fetcher(
            settings,
            Throttle(settings.max_mb_per_s * 1e6),
            self._stop,
            allow_private=rules.allow_private,
            jar=jar,
        )
        self._pages = None
        if rules.with_pages:
            found = PageFetcher(
                settings, self._stop, allow_private=rules.allow_private, cookies=cookies
            )
            self._pages = stack.enter_context(found)
        self._content = stack.enter_context(ContentReader())
        self._aside = stack.enter_context(target.aside())
        self.files = LinkFiles(lake)
        self._recorder = Recorder(self.files)
        self._reading = threading.Lock()
        self.there = 0

    def jobs(self, wanted: dict[str, Link]) -> list[Job]:
        """What is to be done. The others are recorded as what they are."""
        known = self.files.newest()
        jobs, first = [], []
        asked = [link for link in wanted.values() if link.id in known]
        with ThreadPoolExecutor(_LOOKERS) as pool:  # on S3 each is a request
            found = pool.map(lambda link: self._over(link, known[link.id]), asked)
            over = {row.link_id: row for row in found if row is not None}
        for link in wanted.values():
            row = known.get(link.id)
            if (new := over.get(link.id)) is not None:
                self.there += new.state == "done"
                first += [new] * (new != row)
                self._tell(new)
                continue
            jobs.append(Job(link))
            if row is None or row.state == "done":
                first.append(_row(link, "pending"))
        self.files.add(first)
        return jobs

    def run(self, jobs: list[Job]) -> None:
        settings = self._settings
        turns = Turns(jobs, settings.per_host, settings.pause_s)
        count = min(settings.concurrency, len(jobs))
        threads = [
            threading.Thread(target=self._loop, args=[turns], name=f"ingest-{n}", daemon=True)
            for n in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    self._recorder.flush()
        finally:
            self._stop.set()
            turns.end()
            for thread in threads:
                thread.join(2.0)  # one that waits for a server has nothing to lose
            self._recorder.flush(is_last=True)
        if self._fault is not None:
            raise self._fault

    def _loop(self, turns: Turns) -> None:
        """What a thread does."""
        while (job := turns.take()) is not None:
            if self._stop.is_set():
                return
            try:
                self._try(job, turns)
            except BaseException as error:
                self._fault = self._fault or error
                self._stop.set()
                turns.end()
                return

    def _try(self, job: Job, turns: Turns) -> None:
        """Try a link once, and say what came of it, or when it is to be tried again."""
        link, part = job.link, LinkPart(self._aside, job.link.id)
        try:
            with part.lock():
                row = self._done(job, part)
        except LinkBusyError:
            turns.again(job, BUSY_S)
            return
        except LinkError as error:
            if self._stop.is_set():
                return
            if error.may_help and job.attempts < self._settings.tries:
                wait_s = self._settings.backoff_s * 2 ** (job.attempts - 1)
                wait_s = min(wait_s, MOST_BACKOFF_S) * random.uniform(0.5, 1.0)
                turns.again(job, max(wait_s, error.after_s), error.after_s)
                return
            words, state = str(error), error.state
            row = _row(link, state, words, attempts=job.attempts, http_status=error.status)
        self._record(row, part)
        turns.done(job)

    def _done(self, job: Job, part: LinkPart) -> LinkRow:
        """The row of a link that was fetched. The part is ours. Raises LinkError, IngestError."""
        link = job.link
        if link.fault:
            raise RefusedError(link.fault)
        check_url(link.url)
        state = part.state
        if not state.name:
            if (found := self._found(link)) is not None:
                return found
            job.attempts += 1
            try:
                got = self._fetch(link, part)
                name = name_of(link, self._content.suffix(part.path))
                state = part.seal(name, got.license, got.status)
            except LinkError as error:
                if error.is_void or not error.may_help:
                    part.remove()
                raise
        return self._published(job, part, state)

    def _fetch(self, link: Link, part: LinkPart) -> Got:
        got = None if self._pages is None else self._pages.fetch(link.url, part)
        return self._fetcher.fetch(link.url, part) if got is None else got

    def _published(self, job: Job, part: LinkPart, state: PartState) -> LinkRow:
        link, size = job.link, part.size
        # The list may give it another name than when it was sealed.
        name = name_of(link, Path(state.name).suffix)
        if link.sha256 and state.sha256 != link.sha256:
            part.remove()
            words = "what came has another SHA-256 than the list says"
            raise LinkError(words, may_help=True, status=state.status)
        if tombstones.read(self._lake, state.sha256[:16]) is not None:
            part.remove()
            raise RefusedError(FORGOTTEN, state.status)
        if self._target.size(name) is None:
            self._say(link, name, state.license)  # first, so that no video is taken in without
        try:
            is_new = self._target.add(part.path, name)
        except FileNotFoundError:  # whoever had it before has recorded it, and removed it
            raise LinkError("it was fetched by another process", may_help=True) from None
        if not is_new and self._target.sha256(name) != state.sha256:
            part.remove()
            raise LinkError(f"{name} is there already, and another file: give it another name")
        if not is_new:
            self._say(link, name)
        return _row(
            link,
            "done",
            path=self._target.uri(name),
            bytes=size,
            sha256=state.sha256,
            license=dict(link.beside).get("license") or state.license,
            fetched_at=now(),
            attempts=job.attempts,
            http_status=state.status,
        )

    def _found(self, link: Link) -> LinkRow | None:
        """The row of a link whose file is there: fetched by another process since we began, or
        recorded in another lake."""
        name = self._target.video_named(stem_of(link))
        if name is None:
            return None
        with self._reading:
            row = self.files.newest().get(link.id)
        if row is not None and (there := self._name_there(row)) is not None:
            return self._said(link, row, there)
        sha256, size = self._target.sha256(name), self._target.size(name)
        if link.sha256 not in ("", sha256) or (link.name and not link.sha256):
            raise LinkError(f"{name} is there already, and another file: give it another name")
        path = self._target.uri(name)
        row = _row(link, "done", path=path, bytes=size, sha256=sha256, fetched_at=now())
        return self._said(link, row, name)

    def _say(self, link: Link, name: str, license_: str = "") -> None:
        """Have what a list says of a video beside it. Raises LinkError if a file there says
        something else: that may be the word of a person, and is never replaced."""
        beside = sidecar_of_link(name, dict(link.beside), license_)
        if beside is None:
            return
        uri = self._target.uri(name)
        found = read_own_footage_sidecar(uri)
        if found is None:
            if self._target.write(*beside):
                return
            found = read_own_footage_sidecar(uri)
        if found is None or not says(found, dict(link.beside)):
            named = beside[0] if found is None else found.name
            raise LinkError(f"{named} does not say what the list says of it: say it there, too")

    def _said(self, link: Link, row: LinkRow, name: str) -> LinkRow:
        """The row of a link whose video is there: not done while what a list says of it is not
        beside it. It keeps its path, so that the video is known to be there."""
        state: State = "done"
        reason = ""
        try:
            if link.fault:
                raise RefusedError(link.fault)
            self._say(link, name)
        except LinkError as error:
            state, reason = error.state, str(error)
        if (state, reason) == (row.state, row.reason):
            return row
        return replace(row, state=state, reason=reason, time="")

    def _over(self, link: Link, row: LinkRow) -> LinkRow | None:
        """The row of a link that is not to be fetched: the video is there, or is not to come."""
        if row.reason == FORGOTTEN:
            return row
        name = self._name_there(row)
        return None if name is None else self._said(link, row, name)

    def _name_there(self, row: LinkRow) -> str | None:
        """The name of the file of a row in the place where it would be put now; None if it is not
        there."""
        if not row.path:
            return None
        root = self._target.uri("x")[:-1]
        if not row.path.startswith(root):  # another place, or the lake was moved
            name = row.path.rpartition("/")[2]
        else:
            name = row.path.removeprefix(root)
        try:
            return name if self._target.size(name) == row.bytes else None
        except ValueError:  # a name of which a uri is made otherwise
            return None

    def _record(self, row: LinkRow, part: LinkPart) -> None:
        then = partial(part.drop, row.sha256 or "") if row.state == "done" else None
        self._recorder.add(row, then)
        self._tell(row)


def _row(link: Link, state: str, reason: str = "", **said: object) -> LinkRow:
    told = {"license": dict(link.beside).get("license", ""), "source": link.source} | said
    if told["license"]:  # as the manifest has it
        told["license"] = license_expression(str(told["license"]))
    return LinkRow(link.id, link.shown, state, reason, **told)  # type: ignore[arg-type]


def read_cookies(path: Path | None) -> tuple[CookieJar | None, str]:
    """The cookies of a file in Netscape's format, and its text. Raises IngestError."""
    if path is None:
        return None, ""
    jar = MozillaCookieJar(path)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
        for cookie in jar:
            cookie.expires = cookie.expires or None  # 0 is how others write "of this session"
        return jar, path.read_text()
    except (LoadError, OSError, UnicodeDecodeError):
        raise IngestError(
            f"{path} is no file of cookies in Netscape's format, which browsers' extensions write"
        ) from None
