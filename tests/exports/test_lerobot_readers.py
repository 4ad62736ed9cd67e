"""LeRobot itself, Ray and Daft read every row of an export: EGO_HEAVY=1 runs it.

The first test installs them, which takes minutes and a network; EGO_READERS says where to.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from ego_assets.exports.lerobot import packs
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports import reader_environment
from tests.exports.numbered import EGO, SIDE, episode, with_words


def write_numbered(folder: Path, codec: Literal["h264", "av1"]) -> int:
    """Several files, of which one was joined again and one is new. Returns the number of rows."""

    def made(*numbers: int) -> list[object]:
        plain = {n: episode(f"e{n:02d}", 17 + 5 * n, 300 * n, cameras=(EGO, SIDE)) for n in numbers}
        words = {n: with_words(e) for n, e in plain.items()}
        return [type(e)(**(vars(e) | words[n])) for n, e in plain.items()]

    settings = LeRobotSettings(codec=codec)
    write_dataset(folder, made(*range(9)), settings)
    return write_dataset(folder, made(*(n for n in range(11) if n != 4)), settings).frames


@pytest.fixture(scope="module")
def python() -> Path:
    return reader_environment.make()


@pytest.mark.heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("reader", ["lerobot-pyav", "lerobot-torchcodec", "ray", "daft"])
def test_every_row_shows_its_own_pictures(
    python: Path,
    reader: str,
    codec: Literal["h264", "av1"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "MAX_SECONDS", 4)
    rows = write_numbered(tmp_path, codec)
    script = Path(__file__).with_name("readers.py")
    done = subprocess.run(
        [str(python), str(script), reader, str(tmp_path)],
        env=reader_environment.variables(python),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print({name: value for name, value in said.items() if name not in ("places", "wrong")})
    assert said["wrong"] == []
    assert sorted(said["places"]) == list(range(rows))


def test_headers_with_type_parameters_are_rewritten_for_an_older_python() -> None:
    code = "from __future__ import annotations\ntype Id = int\nclass A[T](B):\n    pass\n"
    code += "class C[S: int, T]:\n    def f[K](self, a: K) -> K: ...\n"
    older = reader_environment.for_older_python(code)
    assert "Id = int" in older
    assert "class A(B, Generic[T]):" in older
    assert "class C(Generic[S, T]):" in older and "def f(self, a: K)" in older
    assert older.index("TypeVar") > older.index("__future__")
