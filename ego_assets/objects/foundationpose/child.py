"""The far side of FoundationPose: runs in the user's own Python, beside the user's own checkout.

Here: the format of messages, and the loop that answers them. Not here: who asks
(`foundationpose`). This file runs as a script under another Python (3.8 or newer), so it imports
the standard library and numpy, and nothing of this project.

A message is MAGIC, the version of the format (u16), the length of the header (u32), the header
(a JSON object), then the bytes of each array that its "arrays" lists as [name, dtype, shape]: in C
order, one after the other. All numbers are little endian. Nothing is ever unpickled.

    hello  (sent by this side, first)  python, missing: modules that cannot be found
    load   checkout                    →
    mesh   name, path, scale           → diameter_m
    look   jobs [{mesh, action: register | track, iterations}], with arrays image (H, W, 3) u8,
           depth (H, W) f4 metres, matrix (3, 3) f8, masks (J, H, W) u1,
           poses (J, 4, 4) f8          → poses (J, 4, 4) f8, camera_from_object, metres

An answer has the key "error", and "memory" (bool), where something went wrong.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"EGOM"
VERSION = 1
MAX_HEADER_BYTES = 2**20
MAX_ARRAY_BYTES = 2**29
DTYPES = ("|u1", "<f4", "<f8")
MODULES = ("torch", "trimesh", "nvdiffrast", "pytorch3d", "estimater")
"""What the checkout needs above all; doctor says which of them are not there."""

_PREFIX = struct.Struct("<4sHI")


class MessageError(RuntimeError):
    """What came is no message of this version, or a larger one than is taken."""


def send(connection: socket.socket, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Send one message. Raises OSError, and MessageError for arrays of other types."""
    listed, parts = [], []
    for name, value in arrays.items():
        array = np.asarray(value, order="C")
        if array.dtype.str not in DTYPES:
            raise MessageError(f"{name} is {array.dtype.str}, and only {DTYPES} are sent")
        listed.append([name, array.dtype.str, list(array.shape)])
        parts.append(array)
    text = json.dumps({**header, "arrays": listed}).encode()
    if len(text) > MAX_HEADER_BYTES or sum(p.nbytes for p in parts) > MAX_ARRAY_BYTES:
        raise MessageError("a message that is too long")
    connection.sendall(_PREFIX.pack(MAGIC, VERSION, len(text)) + text)
    for part in parts:
        if part.size:
            connection.sendall(part.reshape(-1).data.cast("B"))


def receive(
    connection: socket.socket, timeout_s: float | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of the next message.

    Raises EOFError if the other side has gone, TimeoutError if the whole message is not there in
    time, MessageError for anything that is no message.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    magic, version, length = _PREFIX.unpack(_bytes(connection, _PREFIX.size, until))
    if magic != MAGIC:
        raise MessageError(f"no message begins with {magic!r}")
    if version != VERSION:
        raise MessageError(f"it speaks version {version} of the format, this side {VERSION}")
    if length > MAX_HEADER_BYTES:
        raise MessageError(f"a header of {length} bytes; at most {MAX_HEADER_BYTES} are taken")
    try:
        header = json.loads(_bytes(connection, length, until).decode())
        listed = [
            (str(n), str(d), tuple(int(s) for s in shape)) for n, d, shape in header["arrays"]
        ]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise MessageError(f"a header that cannot be read: {error}") from error
    if any(d not in DTYPES or len(s) > 4 or min(s, default=0) < 0 for _, d, s in listed):
        raise MessageError("a header with arrays of an unknown type or shape")
    # Exact integers: sizes from outside must not wrap around. Beside a side of 0, too, numpy does
    # not take any number.
    most = sum(np.dtype(d).itemsize * _product(max(n, 1) for n in s) for _, d, s in listed)
    if most > MAX_ARRAY_BYTES:
        raise MessageError(f"arrays of {most} bytes; at most {MAX_ARRAY_BYTES} are taken")
    arrays = {}
    for name, dtype, shape in listed:
        size = np.dtype(dtype).itemsize * _product(shape)
        arrays[name] = np.frombuffer(_bytes(connection, size, until), dtype).reshape(shape)
    return header, arrays


def _product(shape: Iterable[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _bytes(connection: socket.socket, count: int, until: float | None) -> bytearray:
    found = bytearray(count)
    view = memoryview(found)
    while view:
        if until is not None:
            connection.settimeout(max(until - time.monotonic(), 1e-3))
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the other side has gone")
        view = view[got:]
    return found


class Estimators:
    """FoundationPose of each mesh; they share the networks. Remembers no pose between calls."""

    def __init__(self) -> None:
        self.module: Any = None
        self.shared: dict[str, Any] = {}
        self.known: dict[str, Any] = {}

    def answer(
        self, header: dict[str, Any], arrays: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What one request comes to. Raises whatever the checkout raises."""
        if header["op"] == "load":
            return self.load(Path(header["checkout"])), {}
        if header["op"] == "mesh":
            return self.mesh(header["name"], header["path"], header["scale"]), {}
        return {}, {"poses": self.look(header["jobs"], arrays)}

    def load(self, checkout: Path) -> dict[str, Any]:
        self.module = importlib.import_module("estimater")
        found = Path(self.module.__file__ or "").resolve().parent
        if found != checkout.resolve():
            raise RuntimeError(f"`estimater` comes from {found} and not from {checkout}")
        self.shared = {
            "scorer": self.module.ScorePredictor(),
            "refiner": self.module.PoseRefinePredictor(),
            "glctx": self.module.dr.RasterizeCudaContext(),
            "debug": 0,
            # It must exist, and without debugging nothing is written there.
            "debug_dir": str(checkout),
        }
        return {}

    def mesh(self, name: str, path: str, scale: float) -> dict[str, Any]:
        import trimesh

        mesh: Any = trimesh.load(path, force="mesh")
        mesh.apply_scale(scale)
        material: Any = getattr(mesh.visual, "material", None)
        if hasattr(material, "to_simple"):  # as GLB has it: the picture is elsewhere
            material = mesh.visual.material = material.to_simple()
        if material is not None and getattr(material, "image", None) is None:
            # It wants a picture of every textured mesh; one without gets a plain colour.
            mesh.visual = trimesh.visual.ColorVisuals(mesh)
        one = self.module.FoundationPose(
            model_pts=mesh.vertices, model_normals=mesh.vertex_normals, mesh=mesh, **self.shared
        )
        # It leaves a copy of each mesh in /tmp, and never looks at it again.
        with suppress(AttributeError, TypeError, OSError):
            Path(one.mesh_path).unlink()
        self.known[name] = one
        return {"diameter_m": float(one.diameter)}

    def look(self, jobs: list[dict[str, Any]], arrays: dict[str, Any]) -> np.ndarray:
        image, depth, matrix = arrays["image"], arrays["depth"], arrays["matrix"]
        poses = np.zeros((len(jobs), 4, 4))
        for number, job in enumerate(jobs):
            one, iterations = self.known[job["mesh"]], int(job["iterations"])
            if job["action"] == "register":
                mask = arrays["masks"][number] > 0
                one.pose_last = None
                pose = one.register(
                    K=matrix, rgb=image, depth=depth, ob_mask=mask, iteration=iterations
                )
                if one.pose_last is None:  # too little depth: what it gives back is no guess at all
                    continue
            else:
                # Its own memory is of the mesh with its centre at the origin.
                shift = one.get_tf_to_centered_mesh()
                last = arrays["poses"][number] @ np.linalg.inv(np.array(shift.tolist()))
                one.pose_last = shift.new_tensor(last.tolist())
                pose = one.track_one(rgb=image, depth=depth, K=matrix, iteration=iterations)
            poses[number] = np.asarray(pose, np.float64).reshape(4, 4)
        return poses


def _wants_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in str(error).lower()
    )


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent dies; it may have died already."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(descriptor: int, parent: int, checkout: str) -> None:
    """Answer what comes over the socket until the other side closes it."""
    _die_with(parent)
    connection = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    sys.path[0] = checkout
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    send(connection, {"op": "hello", "python": platform.python_version(), "missing": missing}, {})
    estimators = Estimators()
    with suppress(EOFError):
        while True:
            header, arrays = receive(connection)
            try:
                answer, found = estimators.answer(header, arrays)
            except Exception as error:  # the checkout may raise anything: it is the answer
                traceback.print_exc()
                text = f"{type(error).__name__}: {error}"[:2000]
                answer, found = {"error": text, "memory": _wants_memory(error)}, {}
            send(connection, answer, found)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
