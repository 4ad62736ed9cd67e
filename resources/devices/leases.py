"""Machine-wide leases of GPUs: who may use which device, and who is next.

Here: the book of claims, the kernel locks. Not here: who gets what (`schedule`), which devices
there are (`gpu`), what runs on them (`dagster_project.executors.gpu`). Nothing here knows Dagster.

A **claim** first waits, then holds devices. All claims of the machine are in one small file,
`book.json`, changed only under the lock `book.lock` and replaced whole. Each claim also has a
lock file of its own, and counts only while some process has that file locked. The kernel frees
the lock when the process dies, however it dies, so a lease can never be left behind: whoever
looks into the book next strikes the claim out.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from resources import environment
from resources.devices.gpu import Gpu
from resources.devices.schedule import WHOLE, LeaseClaim, schedule

PASSED_OVER_S = 5.0
"""A waiting process that has not looked for so long (stopped, hung) keeps nobody waiting."""


class LeaseError(RuntimeError):
    """The folder of leases cannot be trusted or read."""


@dataclass(frozen=True)
class Request:
    """What a step asks for: a share of one device, or whole devices alone."""

    gpus: float
    memory_gb: float = 0.0
    priority: int = 0
    run_id: str = ""
    step_key: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.gpus < math.inf or (self.gpus > 1 and self.gpus % 1):
            raise ValueError(f"{self.gpus:g} GPUs: ask for a share up to 1, or a whole number")

    @property
    def count(self) -> int:
        return max(1, int(self.gpus))

    @property
    def share(self) -> int:
        """Of each device, in thousandths; at least one."""
        return WHOLE if self.gpus >= 1 else max(1, round(self.gpus * WHOLE))

    @property
    def memory_mb(self) -> int:
        return round(self.memory_gb * 1000)

    @property
    def kind(self) -> tuple[int, int, int]:
        return self.count, self.share, self.memory_mb

    def fits(self, gpus: Sequence[Gpu]) -> bool:
        """Whether these devices could ever do, all else being free."""
        return sum(g.memory_gb >= self.memory_gb for g in gpus) >= self.count


def _claim(name: str, number: int, request: Request, gpus: Sequence[Gpu]) -> LeaseClaim:
    return LeaseClaim(
        id=name,
        number=number,
        priority=request.priority,
        count=request.count,
        share=request.share,
        memory_mb=request.memory_mb,
        eligible=_eligible(gpus),
        run_id=request.run_id,
        step_key=request.step_key,
        pid=os.getpid(),
        since=time.time(),
    )


def _text(claims: Iterable[LeaseClaim]) -> str:
    return json.dumps([vars(c) for c in claims])  # `asdict` would copy all: most of a look's cost


def _eligible(gpus: Iterable[Gpu]) -> dict[str, int]:
    return {g.key: round(g.memory_gb * 1000) for g in gpus}


class LeaseBook:
    """The machine's leases, for every process of this user."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = own_folder(folder)

    def ask(self, request: Request, gpus: Sequence[Gpu]) -> Lease:
        """Stand in the queue for some of these devices."""
        name = secrets.token_hex(8)
        with ExitStack() as undo:
            with self._open() as claims:
                self._sweep_files({c.id for c in claims})
                descriptor = os.open(self._file(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                undo.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                number = 1 + max((c.number for c in claims), default=0)
                claims.append(_claim(name, number, request, gpus))
            undo.pop_all()
        return Lease(self, name, request, {g.key: g for g in gpus}, descriptor)

    def claims(self) -> list[LeaseClaim]:
        """Everybody who holds a device or waits for one."""
        with self._open() as claims:
            return list(claims)

    def holders(self) -> list[LeaseClaim]:
        return [c for c in self.claims() if c.devices]

    @contextmanager
    def _open(self) -> Iterator[list[LeaseClaim]]:
        """The claims that are alive, under the book's lock; written back if they changed."""
        lock = os.open(self.folder / "book.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            claims = [c for c in before if self._is_alive(c.id)]
            _keep_young(
                [*self.folder.glob("book.*"), *(self._file(c.id) for c in claims if c.devices)]
            )
            snapshot = _text(before)
            yield claims
            after = _text(claims)
            if after != snapshot:
                self._write(after)
        finally:
            # Not left to close(): a process forked meanwhile would go on holding the lock.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _read(self) -> list[LeaseClaim]:
        path = self.folder / "book.json"
        try:
            return [LeaseClaim(**entry) for entry in json.loads(path.read_text())]
        except (FileNotFoundError, ValueError, TypeError) as error:
            # Replaced whole, so only a power cut tears it, and then nobody holds anything.
            if any(self._is_alive(f.stem) for f in self.folder.glob("*.claim")):
                raise LeaseError(
                    f"{path} is damaged or gone while leases are held: stop the runs of this "
                    f"machine, then remove it ({error})"
                ) from error
            return []

    def _write(self, text: str) -> None:
        aside = self.folder / "book.aside"
        try:
            aside.write_text(text)
            aside.replace(self.folder / "book.json")
        except OSError as error:
            raise LeaseError(
                f"{aside} cannot be written: {error.strerror}: make room there, or have every run "
                "of this machine use another EGO_LEASE_DIR"
            ) from error

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _is_alive(self, name: str) -> bool:
        """Whether a process has the claim's lock; a dead claim's file is removed."""
        path = self._file(name)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink()
            return False
        finally:
            os.close(descriptor)

    def _sweep_files(self, known: set[str]) -> None:
        """Files whose process died before it could enter them."""
        for path in self.folder.glob("*.claim"):
            if path.stem not in known:
                self._is_alive(path.stem)

    def _is_looking(self, claim: LeaseClaim) -> bool:
        with suppress(FileNotFoundError):
            # From the future: the clock was put back since.
            return abs(time.time() - self._file(claim.id).stat().st_mtime) < PASSED_OVER_S
        return False


class Lease:
    """A place in the queue, then devices, as long as any process has the lock of its file.

    The process that asked has it until `release`; the one that works on the device takes it too,
    with `hold`. So it outlives neither's need: not the worker's when the run is killed, and not
    that of what the worker left on the device when the worker is.
    """

    def __init__(
        self, book: LeaseBook, name: str, request: Request, gpus: dict[str, Gpu], descriptor: int
    ) -> None:
        self.book = book
        self.name = name
        self.request = request
        self.path = str(book._file(name))
        self.devices: list[Gpu] = []
        self._gpus = gpus
        self._descriptor: int | None = descriptor

    def poll(self, prefer: Collection[str] = ()) -> bool:
        """Look whether it is our turn; from then on `devices` are ours.

        prefer: keys of devices to be given first, all else being equal.
        """
        if self.devices:
            return True
        assert self._descriptor is not None
        os.utime(self._descriptor)
        with self.book._open() as claims:
            mine = next((c for c in claims if c.id == self.name), None)
            if mine is None:
                raise LeaseError(f"{self.path} is gone: somebody emptied the folder of leases")
            counting = [c for c in claims if c.devices or self.book._is_looking(c)]
            grants, reserved = schedule(counting, prefer)
            mine.devices = grants.get(self.name, [])
            mine.reserved = reserved.get(self.name, [])
            if mine.devices:
                mine.since = time.time()
        self.devices = [self._gpus[k] for k in mine.devices]
        return bool(self.devices)

    def look_away(self) -> None:
        """Let others pass until the next `poll`; the place in the queue is kept."""
        assert self._descriptor is not None
        past = time.time() - PASSED_OVER_S
        os.utime(self._descriptor, (past, past))

    def offer(self, gpus: Sequence[Gpu]) -> None:
        """Wait for some of these devices from now on; the place in the queue is kept."""
        self._gpus = {g.key: g for g in gpus}
        self._change(eligible=_eligible(gpus))

    def note(self, pid: int) -> None:
        """Say which process works on the devices."""
        self._change(pid=pid)

    def is_wanted(self) -> bool:
        """Whether these devices should be given up though nothing else is done with them.

        Not for a step of the same run and kind: that may `reuse` them, with what is loaded.
        """
        claims, mine = self.book.claims(), self.request
        kin = [c.id for c in claims if c.run_id == mine.run_id and c.kind == mine.kind]
        return self._is_wanted(claims, kin)

    def rest(self) -> None:
        """Say that the holder keeps the devices (a loaded model) without using them."""
        self._change(idle=True)

    def reuse(self, request: Request, place: Lease | None = None) -> bool:
        """Use a resting lease again for a request like it, unless somebody waits for the devices.

        place: the request's own in the queue, which is given up; those behind it do not count.
        Of the same kind only: a lease never grows, and one that is too big wastes a device.
        """
        if request.kind != self.request.kind:
            return False
        with self.book._open() as claims:
            mine = next((c for c in claims if c.id == self.name), None)
            if mine is None or self._is_wanted(claims, [place.name] if place else []):
                return False
            mine.idle, mine.step_key, mine.since = False, request.step_key, time.time()
        if place:
            place.release()
        return True

    def release(self) -> None:
        """Give up this process's hold; the claim ends when nobody else has one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_wanted(self, claims: list[LeaseClaim], ours: Collection[str]) -> bool:
        """Whether a claim, other than `ours`, would get a device of this lease, or wait for it, if
        all that only rest made room: of those that look, and get nothing else."""
        claims = [c for c in claims if c.devices or self.book._is_looking(c)]
        now, _ = schedule(claims)
        grants, reserved = schedule(
            replace(c, devices=now.get(c.id, c.devices)) for c in claims if not c.idle
        )
        for_us = {key for name in ours for key in grants.get(name, [])}
        for_others = {
            key
            for found in (grants, reserved)
            for name, keys in found.items()
            if name not in ours
            for key in keys
        }
        return any(g.key in for_others - for_us for g in self.devices)

    def _change(self, **values: object) -> None:
        with self.book._open() as claims:
            for claim in claims:
                if claim.id == self.name:
                    for name, value in values.items():
                        setattr(claim, name, value)


def describe_holders(book: LeaseBook, gpus: Iterable[Gpu]) -> str:
    """Who has which of these devices, for a person."""
    names = {g.key: str(g) for g in gpus}
    return "; ".join(
        f"{names.get(key, key)} is held by {c.step_key} of run {c.run_id[:8]}, process {c.pid}"
        for c in book.holders()
        for key in c.devices
    )


def hold(path: str) -> int:
    """Take part in a lease that another process holds; the descriptor is the hold.

    Processes that are forked from here hold it too, which is right: they may use the device.
    """
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _keep_young([Path(path), *Path(path).parent.glob("book.*")])
    if not os.fstat(descriptor).st_nlink:  # struck out between the two
        os.close(descriptor)
        raise FileNotFoundError(f"the lease {path} is over: whoever held it is dead")
    return descriptor


def hold_ours() -> list[int]:
    """As `hold`, of the lease that this process works under; [] without one."""
    path = environment.lease()
    return [hold(path)] if path else []


def let_go(descriptor: int) -> None:
    """End a hold, for the processes forked from here as well."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _keep_young(paths: Iterable[Path]) -> None:
    """What clears /tmp goes by age, and a device may be held for weeks."""
    for path in paths:
        with suppress(FileNotFoundError):
            os.utime(path)


def default_folder() -> Path:
    """$EGO_LEASE_DIR, else one folder for each user; TMPDIR would differ from run to run."""
    return Path(environment.lease_folder() or f"/tmp/ego-gpu-leases-{os.getuid()}")


def own_folder(given: Path | None = None) -> Path:
    """The folder, made if need be, and nobody else's: /tmp is open to all. Raises LeaseError."""
    folder = given or default_folder()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise LeaseError(f"{folder} is not a folder: remove it, or set EGO_LEASE_DIR")
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise LeaseError(
            f"{folder} must belong to this user alone (mode 0700): remove it, or set EGO_LEASE_DIR"
        )
    return folder
