"""Makes an environment with the newest LeRobot, Ray and Daft, which cannot share ours.

LeRobot wants Python 3.12 and a torch of its own. Where PyTorch's index of CPU builds answers, or
the machine has an NVIDIA GPU, that is what it gets. Elsewhere the default index has only builds
with CUDA for that Python, which are never downloaded. Then LeRobot runs under the Python and the
torch of this project, outside of the ranges that it declares: its code is brought to that Python
(headers like `class A[T]` are written the older way; nothing else is changed), and torchvision,
whose default build wants CUDA for its operators, goes without them. Neither touches how rows and
pictures are read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = os.environ.get("EGO_TORCH_INDEX") or "https://download.pytorch.org/whl/cpu"
NEWEST = ("3.14", "3.13", "3.12")
OTHERS = ("ray[data]", "daft")
NEEDS = [
    "typing-extensions",
    "filelock",
    "sympy",
    "networkx",
    "jinja2",
    "fsspec",
    "pillow",
    "jsonlines",
    "einops",
    "requests",
    "safetensors",
    "termcolor",
    "tqdm",
    "deepdiff",
    "gymnasium",
    "packaging<26",
    "numpy>=2,<2.3",
    "datasets>=4.8,<5",
    "pandas<3",
    "pyarrow>=21,<30",
    "av>=15,<16",
    "draccus>=0.11.6,<0.12",
    "huggingface-hub>=1.6,<2",
]
"""What LeRobot 0.6 needs to read, but for torch."""
_HEAD = re.compile(r"^( *(?:async )?(?:class|def) \w+)\[([^\]]+)\](.*)$", re.M)
_ALIAS = re.compile(r"^type (\w+)(?:\[[^\]]*\])? = ", re.M)


def make() -> Path:
    """Returns the Python of the environment, which is made once a folder (EGO_READERS)."""
    folder = Path(os.environ.get("EGO_READERS") or Path(tempfile.gettempdir()) / "ego-readers")
    python = folder / "bin" / "python"
    if not (folder / "finished").exists():
        shutil.rmtree(folder, ignore_errors=True)
        newer = next(pythons(), None) if has_gpu() or answers(CPU_INDEX) else None
        run(newer or sys.executable, "-m", "venv", str(folder))
        if newer:
            if not has_gpu():
                pip(python, "--index-url", CPU_INDEX, "torch>=2.7,<2.12", "torchvision<0.27")
            pip(python, "lerobot[dataset]>=0.6", *OTHERS)
        else:
            without_cuda(folder, python)
        (folder / "finished").touch()
    return python


def variables(python: Path) -> dict[str, str]:
    """The environment of its processes: torchcodec finds the FFmpeg of PyAV, Ray a home."""
    home = python.parents[1] / "home"
    libraries = python.parents[1] / "ffmpeg"
    if not libraries.exists():
        home.mkdir(exist_ok=True)
        libraries.mkdir()
        for path in packages(python).glob("av.libs/*.so*"):
            plain = re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", path.name)
            (libraries / plain).symlink_to(path)
    found = f"{libraries}:{packages(python) / 'av.libs'}"
    return os.environ | {"LD_LIBRARY_PATH": found, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def without_cuda(folder: Path, python: Path) -> None:
    run(str(python), str(ROOT / ".ci" / "install_torch"))
    pip(python, *NEEDS)
    version = output(python, "import torch; print(torch.__version__)")
    held = folder / "torch.txt"
    held.write_text(f"torch=={version}\n")
    minor = int(version.split(".")[1])
    pip(python, "--no-deps", f"torchvision==0.{minor + 15}.*", "torchcodec<0.12")
    pip(python, "--no-deps", "--ignore-requires-python", "lerobot>=0.6")
    pip(python, "-c", str(held), *OTHERS)
    site = packages(python)
    (site / "torchvision" / "_meta_registrations.py").write_text("")
    if sys.version_info < (3, 12):
        for path in (site / "lerobot").rglob("*.py"):
            path.write_text(for_older_python(path.read_text()))


def for_older_python(code: str) -> str:
    """Rewrites headers with type parameters (PEP 695)."""
    names: set[str] = set()

    def head(found: re.Match[str]) -> str:
        begin, parameters, rest = found.groups()
        mine = [each.partition(":")[0].strip() for each in parameters.split(",")]
        names.update(mine)
        if begin.lstrip().startswith("class"):
            base = f"Generic[{', '.join(mine)}]"
            rest = f"({base}){rest}" if rest[0] == ":" else rest.replace(")", f", {base})", 1)
        return begin + rest

    code = _ALIAS.sub(r"\1 = ", _HEAD.sub(head, code))
    if not names:
        return code
    variables = "".join(f'{name} = TypeVar("{name}")\n' for name in sorted(names))
    future = list(re.finditer(r"^from __future__ .*\n", code, re.M))
    first = re.search(r"^(?:import|from) ", code, re.M)
    at = future[-1].end() if future else first.start() if first else 0
    return f"{code[:at]}from typing import Generic, TypeVar\n{variables}{code[at:]}"


def pythons() -> Iterator[str]:
    """Newer Pythons of this machine that run, those of pyenv included."""
    for version in NEWEST:
        names = [shutil.which(f"python{version}")]
        if pyenv := shutil.which("pyenv"):
            root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
            names += map(str, Path(root).glob(f"versions/{version}.*/bin/python"))
        for name in filter(None, names):
            if subprocess.run([name, "-c", "import venv"], capture_output=True).returncode == 0:
                yield name


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def answers(index: str) -> bool:
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=5):
            return True
    except (OSError, ValueError):
        return False


def packages(python: Path) -> Path:
    return next((python.parents[1] / "lib").glob("python3*")) / "site-packages"


def pip(python: Path, *arguments: str) -> None:
    run(str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", *arguments)


def output(python: Path, code: str) -> str:
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
