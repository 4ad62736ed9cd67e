"""A folder that plays FoundationPose's checkout: its public interface, known poses, and faults."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np

WEIGHTS = [
    f"weights/{run}/{name}"
    for run in ("2023-10-28-18-33-37", "2024-01-11-20-02-45")
    for name in ("config.yml", "model_best.pth")
]
# The pictures of the tests have the number of the frame as their colour. `register` finds the pose
# of that frame; `track_one` only if the object has moved less than 5 cm since its last pose.
_SOURCE = '''
import json, os, sys, time, uuid
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent
TRUTH = {int(k): np.array(v) for k, v in json.loads((HERE / "truth.json").read_text()).items()}
print("garbage " * 100)


class Tensor(np.ndarray):
    """As much of a tensor as is used: it is made by another."""

    def new_tensor(self, data):
        return np.array(data, np.float32).view(Tensor)


class dr:
    @staticmethod
    def RasterizeCudaContext():
        return "context"


class ScorePredictor:
    pass


class PoseRefinePredictor:
    pass


def fault(frame, image=None):
    """The fault that is planted at a frame; once."""
    path = HERE / "fault.txt"
    if not path.exists():
        return ""
    kind, at = path.read_text().split()
    if at != str(frame) and (at != "any" or frame < 0):
        return ""
    path.unlink()
    if kind == "raise":
        raise ValueError("no such luck")
    if kind == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")
    if kind == "environment":
        raise ValueError(" ".join(os.environ))
    if kind == "exit":
        print("goodbye", flush=True)
        os._exit(7)
    if kind == "hang":
        print("I wait", flush=True)
        (HERE / "hangs").touch()
        time.sleep(600)
    if kind == "garbage":
        os.write(int(sys.argv[1]), b"\\x80\\x04garbage, and more garbage")
    return kind


fault(-1)


class FoundationPose:
    def __init__(self, model_pts, model_normals, mesh=None, scorer=None, refiner=None,
                 glctx=None, debug=0, debug_dir=""):
        assert isinstance(scorer, ScorePredictor) and isinstance(refiner, PoseRefinePredictor)
        assert glctx == "context" and Path(debug_dir).is_dir() and debug == 0
        if mesh.visual.kind == "texture":
            colour = np.asarray(mesh.visual.material.image.convert("RGB"))[0, 0].tolist()
            (HERE / "colour.json").write_text(json.dumps(colour))
        self.mesh_path = f"/tmp/{uuid.uuid4()}.obj"
        mesh.export(self.mesh_path)
        (HERE / "left_behind.txt").write_text(self.mesh_path)
        assert len(model_pts) == len(model_normals) == len(mesh.vertices)
        low, high = np.array(mesh.vertices.min(0)), np.array(mesh.vertices.max(0))
        self.centre = (low + high) / 2
        self.diameter = float(np.linalg.norm(high - low))
        self.pose_last = None

    def get_tf_to_centered_mesh(self):
        shift = np.eye(4, dtype=np.float32)
        shift[:3, 3] = -self.centre
        return shift.view(Tensor)

    def _done(self, action, frame, centred):
        with (HERE / "log.txt").open("a") as log:
            log.write(f"{action} {frame}\\n")
        self.pose_last = centred
        kind = fault(frame)
        if kind == "nan":
            return np.full((4, 4), np.nan)
        if kind == "mirrored":
            return centred @ np.diag([-1, 1, 1, 1])
        return centred @ np.asarray(self.get_tf_to_centered_mesh())

    def _truth(self, frame):
        shift = np.linalg.inv(np.asarray(self.get_tf_to_centered_mesh()))
        return TRUTH[frame] @ shift

    def register(self, K, rgb, depth, ob_mask, ob_id=None, glctx=None, iteration=5):
        assert ob_mask.dtype == bool and ob_mask.shape == depth.shape == rgb.shape[:2]
        assert depth.dtype == np.float32 and depth[0, 0] == 0 and depth[9, 9] > 0
        assert K.shape == (3, 3) and iteration == 5
        frame = int(rgb[rgb.shape[0] // 2, rgb.shape[1] // 2, 0])
        if fault(frame + 1000) == "unsure":
            return self._truth(frame)
        if frame in json.loads((HERE / "blind.json").read_text()):
            pose = np.eye(4)
            pose[:3, 3] = (0.3, 0, 0.5)
            return self._done("register", frame, pose)
        return self._done("register", frame, self._truth(frame))

    def track_one(self, rgb, depth, K, iteration, extra={}):
        assert isinstance(self.pose_last, Tensor) and iteration == 2
        frame = int(rgb[rgb.shape[0] // 2, rgb.shape[1] // 2, 0])
        last = np.asarray(self.pose_last, np.float64)
        near = np.linalg.norm(last[:3, 3] - self._truth(frame)[:3, 3]) < 0.05
        return self._done("track", frame, self._truth(frame) if near else last)
'''


def fake_checkout(folder: Path, truth: dict[int, np.ndarray]) -> Path:
    """truth: camera_from_object (4, 4) by frame."""
    for name in WEIGHTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"weights")
    for name in ("nvdiffrast", "pytorch3d"):
        (folder / f"{name}.py").write_text("")
    (folder / "estimater.py").write_text(textwrap.dedent(_SOURCE))
    (folder / "truth.json").write_text(json.dumps({f: p.tolist() for f, p in truth.items()}))
    set_blind(folder, [])
    return folder


def set_blind(folder: Path, frames: list[int]) -> None:
    """Frames in which `register` finds nothing."""
    (folder / "blind.json").write_text(json.dumps(frames))


def plant(folder: Path, kind: str, frame: int) -> None:
    """A fault at a frame; -1: where the module is imported."""
    (folder / "fault.txt").write_text(f"{kind} {frame}")


def log_of(folder: Path) -> list[str]:
    """What was asked so far: `register 0`, `track 1`, …"""
    path = folder / "log.txt"
    return path.read_text().splitlines() if path.exists() else []
