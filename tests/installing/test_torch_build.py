"""A machine without an NVIDIA GPU never downloads CUDA: pip itself, over indexes of tiny wheels."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "install_torch"
ABOUT = ' data-core-metadata="true"'
"""Of a link in an index: what the wheel needs is told without downloading it (PEP 658)."""


def version() -> str:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    return next(x for x in lines if '"torch==' in x).split("==")[1].split('"')[0]


def make_wheel(index: Path, name: str, number: str, needs: str = "") -> None:
    """A wheel without code, in a folder that a web server shows as a simple index."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{number}"
    file = folder / f"{stem}-py3-none-any.whl"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    about += f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(file, "w") as wheel:
        info = f"{stem}.dist-info"
        wheel.writestr(f"{info}/METADATA", about)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", kind)
        wheel.writestr(f"{info}/RECORD", "")
    file.with_name(f"{file.name}.metadata").write_text(about)
    links = [f'<a href="{w.name}"{ABOUT}>{w.name}</a>' for w in folder.glob("*.whl")]
    (folder / "index.html").write_text("<!DOCTYPE html>" + "".join(links))


class Indexes:
    """Two package indexes over HTTP, and what was asked of them."""

    def __init__(self, root: Path, url: str, asked: list[str]) -> None:
        self.root, self.url, self.asked = root, url, asked


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    make_wheel(tmp_path / "cpu", "torch", f"{version()}+cpu")
    make_wheel(tmp_path / "default", "torch", version(), needs="nvidia-cublas")
    make_wheel(tmp_path / "default", "nvidia-cublas", "13.0")
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Indexes(tmp_path, f"http://127.0.0.1:{server.server_port}", asked)
        server.shutdown()


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def environment(empty_environment: Path, tmp_path: Path) -> Path:
    packages = next(empty_environment.glob("lib/python*/site-packages"))
    yield empty_environment
    for found in (*packages.glob("torch-*"), *packages.glob("nvidia_*")):
        shutil.rmtree(found)


def run(
    environment: Path, indexes: Indexes, **variables: str
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """What the script says, and the packages that are there then, pip's own left out."""
    settings: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{indexes.url}/default",
        "PIP_NO_CACHE_DIR": "1",
        "EGO_TORCH_INDEX": f"{indexes.url}/cpu",
        "EGO_TORCH": "cpu",
        **variables,
    }
    python = environment / "bin" / "python"
    done = subprocess.run([str(python), str(SCRIPT)], env=settings, capture_output=True, text=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    found = {p.name.removesuffix(".dist-info") for p in packages.glob("*.dist-info")}
    return done, {f for f in found if not f.startswith(("pip-", "setuptools-"))}


def test_without_a_gpu_the_cpu_build_is_taken(environment: Path, indexes: Indexes) -> None:
    done, found = run(environment, indexes)
    assert done.returncode == 0, done.stderr
    assert found == {f"torch-{version()}+cpu"}
    assert f"CPU build from {indexes.url}/cpu" in done.stdout
    again, _ = run(environment, indexes)
    assert f"{version()}+cpu is installed" in again.stdout


def test_cuda_is_not_downloaded_when_the_index_of_cpu_builds_is_away(
    environment: Path, indexes: Indexes
) -> None:
    done, found = run(environment, indexes, EGO_TORCH_INDEX=f"{indexes.url}/nothing-here")
    assert done.returncode == 1
    assert found == set()
    assert "would download CUDA" in done.stderr
    assert "EGO_TORCH_INDEX" in done.stderr
    assert not [path for path in indexes.asked if path.endswith(".whl")]


def test_no_wheel_is_downloaded_from_an_index_that_does_not_say_what_it_needs(
    environment: Path, indexes: Indexes
) -> None:
    page = indexes.root / "default" / "torch" / "index.html"
    page.write_text(page.read_text().replace(ABOUT, ""))
    done, found = run(environment, indexes, EGO_TORCH_INDEX=f"{indexes.url}/nothing-here")
    assert done.returncode == 1
    assert found == set()
    assert not [path for path in indexes.asked if path.endswith(".whl")]


def test_a_default_build_that_needs_no_cuda_will_do(environment: Path, indexes: Indexes) -> None:
    make_wheel(indexes.root / "default", "torch", version())
    done, found = run(environment, indexes, EGO_TORCH_INDEX=f"{indexes.url}/nothing-here")
    assert done.returncode == 0, done.stderr
    assert found == {f"torch-{version()}"}


def test_the_default_index_may_have_a_cpu_build(environment: Path, indexes: Indexes) -> None:
    make_wheel(indexes.root / "default", "torch", f"{version()}+cpu")
    done, found = run(environment, indexes, EGO_TORCH_INDEX=f"{indexes.url}/nothing-here")
    assert done.returncode == 0, done.stderr
    assert found == {f"torch-{version()}+cpu"}


def test_a_machine_with_a_gpu_gets_the_default_build(environment: Path, indexes: Indexes) -> None:
    done, found = run(environment, indexes, EGO_TORCH="cuda")
    assert done.returncode == 0, done.stderr
    assert found == {f"torch-{version()}", "nvidia_cublas-13.0"}


def test_a_wrong_word_is_refused(environment: Path, indexes: Indexes) -> None:
    done, _ = run(environment, indexes, EGO_TORCH="gpu")
    assert done.returncode == 1
    assert "EGO_TORCH is 'gpu': give cpu or cuda" in done.stderr
