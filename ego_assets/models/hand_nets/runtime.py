"""Runs a TFLite network on the CPU: by LiteRT where it is installed, by OpenCV elsewhere.

Here: one picture in, named arrays out. Not here: what the arrays mean (`palms`, `landmarks`).

The two agree to about 1e-4 in what the hand nets give; LiteRT takes a fifth of the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ego_assets.models.weights import WeightsError

Runtime = Literal["litert", "opencv"]
MOST_COPIES = 4
"""Of a network in a process: on more cores a frame has no more to look at, but they take memory."""


class Net(Protocol):
    """A network that looks at a picture at a time."""

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) float32 in, its outputs by name."""
        ...


def runtime_here() -> Runtime:
    """The faster of the runtimes that are installed."""
    return "litert" if find_spec("ai_edge_litert") is not None else "opencv"


def load_net(path: Path, outputs: tuple[str, ...], runtime: Runtime | None = None) -> Net:
    """Read a network, which several threads may use at a time. outputs: the names of those that are
    wanted. Raises WeightsError."""
    kind = _LiteRtNet if (runtime or runtime_here()) == "litert" else _OpenCvNet

    def build() -> Net:
        try:
            return kind(path, outputs)
        except Exception as error:  # each library has its own for files that are not theirs
            raise WeightsError(
                f"{path} cannot be read as a TFLite network: {type(error).__name__}: {error}"
            ) from error

    return _NetOfMany(build)


class _NetOfMany:
    """A network of which there are copies, since threads can share neither library's; some wait if
    many look at a time."""

    def __init__(self, build: Callable[[], Net]) -> None:
        self._build = build
        self._free = [build()]
        self._turns = threading.BoundedSemaphore(MOST_COPIES)

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        with self._turns:
            try:
                net = self._free.pop()
            except IndexError:
                net = self._build()
            try:
                return net.run(picture)
            finally:
                self._free.append(net)


class _LiteRtNet:
    def __init__(self, path: Path, outputs: tuple[str, ...]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # More threads gain little on nets of this size, and takes run side by side.
        self._net = Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        places = {detail["name"]: detail["index"] for detail in self._net.get_output_details()}
        self._outputs = {name: places[name] for name in outputs}

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        self._net.set_tensor(self._input, picture[None])
        self._net.invoke()
        return {name: self._net.get_tensor(at)[0] for name, at in self._outputs.items()}


class _OpenCvNet:
    def __init__(self, path: Path, outputs: tuple[str, ...]) -> None:
        import cv2

        # The new engine of OpenCV 5 reads these networks, and gives other values.
        engine = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
        arguments = (str(path),) if engine is None else (str(path), engine)
        self._net = cv2.dnn.readNetFromTFLite(*arguments)
        self._names = outputs
        if missing := set(outputs) - set(self._net.getLayerNames()):
            raise KeyError(*sorted(missing))

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        self._net.setInput(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
        # What comes out belongs to the network, and is written over by the next call.
        found = self._net.forward(list(self._names))
        return {name: value[0].copy() for name, value in zip(self._names, found, strict=True)}
