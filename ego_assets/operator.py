"""What a backend must do, and the values that pass between a stage and its operator.

Here: protocols and plain records. Not here: any implementation, any Dagster, any file format.

An operator works clip by clip. Clips of one take come in order, and what an operator wants to
remember it returns as `carried` (a flat dict of JSON values and numpy arrays, which the stage
stores beside the clip, so that a killed take goes on where it stopped).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa

Carried = dict[str, Any]
Rows = list[dict[str, Any]]
Batch: TypeAlias = "Rows | pa.Table"
"""Rows, or, of very many, a table that has the schema already."""


class BadInputError(ValueError):
    """The input itself is at fault: trying again cannot help."""


@dataclass(frozen=True)
class Frame:
    """A decoded, upright picture.

    image: (H, W, 3) uint8 RGB, possibly smaller than the video; `scale` = W / full width.
    """

    index: int
    pts_s: float
    image: np.ndarray
    scale: float


@dataclass(frozen=True)
class Intrinsics:
    """Camera model of the upright, full-size picture, in pixels (OpenCV conventions).

    `model` is PINHOLE, OPENCV (k1 k2 p1 p2) or OPENCV_FISHEYE (k1 k2 k3 k4). focal_std_px: standard
    deviation of fx, where it was estimated with one.
    """

    model: str
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    source: str = "assumed_fov"
    focal_std_px: float | None = None

    def matrix(self, scale: float = 1.0) -> np.ndarray:
        """(3, 3) camera matrix of a picture resized by `scale`."""
        k = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])
        # Pixel centres lie at half-integers, so the principal point moves by half a pixel too.
        k[:2, :2] *= scale
        k[0, 2] = (self.cx + 0.5) * scale - 0.5
        k[1, 2] = (self.cy + 0.5) * scale - 0.5
        return k


LENS = (
    "camera_model",
    "fx_px",
    "fy_px",
    "cx_px",
    "cy_px",
    "distortion",
    "intrinsics_source",
)
"""Columns of a lens, in `video_manifest` and `scene_reconstruction`."""


def intrinsics_of(video: Mapping[str, Any]) -> Intrinsics:
    """The camera of a manifest row. Raises BadInputError if the row has none."""
    if video["fx_px"] is None:
        raise BadInputError(f"{video['uri']}: the manifest has no intrinsics")
    return Intrinsics(
        model=video["camera_model"],
        fx=video["fx_px"],
        fy=video["fy_px"],
        cx=video["cx_px"],
        cy=video["cy_px"],
        distortion=tuple(video["distortion"] or ()),
        source=video["intrinsics_source"],
    )


class FrameSource(Protocol):
    """Frames of one clip; every call of `read` decodes afresh, with bounded memory."""

    width: int
    height: int

    def read(
        self,
        *,
        max_side_px: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> Iterator[Frame]:
        """Frames in presentation order; `indices` (sorted) picks some; `max_side_px` shrinks."""
        ...

    def time_of(self, frame_index: int) -> float:
        """`pts_s` of a frame, also of one that is not read or does not decode."""
        ...


@dataclass(frozen=True)
class ClipInput:
    """All that an operator may look at for one clip.

    clip: the row of `clips`; video: the row of `video_manifest`; tables: upstream rows of this
    clip by table name, `frame_index` ascending; arrays: upstream arrays by table name (the
    points of `scene_reconstruction`).
    """

    clip: Mapping[str, Any]
    video: Mapping[str, Any]
    frames: FrameSource
    intrinsics: Intrinsics
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def clip_id(self) -> str:
        found: str = self.clip["clip_id"]
        return found

    @property
    def first_new_frame(self) -> int:
        """First frame after the context that is shared with the clip before."""
        start: int = self.clip["start_frame"]
        context: int = self.clip["context_frames"]
        return start + context

    @property
    def first_track_number(self) -> int:
        """Where an operator begins to count tracks that is handed nothing by the clip before.

        Behind a clip that failed, names of the take must not come again for something else.
        """
        index: int = self.clip["index_in_take"]
        return 1000 * index

    def row(self, frame_index: int, pts_s: float) -> dict[str, Any]:
        """The columns that every per-frame row begins with."""
        return {
            "video_id": self.clip["video_id"],
            "shard": self.clip["shard"],
            "clip_id": self.clip["clip_id"],
            "frame_index": frame_index,
            "pts_s": pts_s,
            "is_context": frame_index < self.first_new_frame,
        }


@dataclass
class ClipOutput:
    """What an operator made of one clip.

    tables: rows by table name; arrays: large arrays by table name (published as one npz, whose
    place the stage writes into the rows' `points_uri`); carried: state for the next clip of the
    take; notes: figures and sentences for the person who looks at the run, and `accelerator` for
    the files' provenance, of an operator that uses a GPU without torch.
    """

    tables: dict[str, Batch]
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    carried: Carried = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ClipOperator(Protocol):
    """Common shape of every backend. `name` and `version` enter the fingerprint.

    A class may say besides `on_device = True`: it computes on a GPU where there is one, and its
    worker gets one to itself, and what `process` returns is written while it is called for the
    next clip (so it must not be touched any more); and `lanes = n`: `process` is called from so
    many threads at a time, for different takes, so that the device works while another clip is
    decoded.
    """

    name: str
    version: str
    quality_tier: str
    weights_hash: str

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput: ...


@dataclass(frozen=True)
class TablesInput:
    """All that an operator over whole shards may look at: {shard: {table: its rows}}.

    shard: that which the rows are made for; made: {shard: {table: ids of the items that are done}},
    with or without a row; wearers: {recording: who wears the camera, as chapters in other shards
    say}, where chapters of this shard do not say it.
    """

    shard: str
    shards: Mapping[str, Mapping[str, pa.Table]]
    made: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    wearers: Mapping[str, str] = field(default_factory=dict)


class TablesOperator(Protocol):
    """Shape of a backend that works on a shard, or on the lake, at a time.

    It may have `reads`, {table: the columns that it wants}; of other tables it gets all.
    """

    name: str
    version: str
    quality_tier: str
    weights_hash: str

    def process(self, item: TablesInput) -> ClipOutput: ...


class FileOperator(Protocol):
    """Shape of a backend that looks at raw files."""

    name: str
    version: str
    quality_tier: str
    weights_hash: str

    def inspect(self, path: Path) -> tuple[str, int, dict[str, Any]]:
        """(SHA-256 in hex or "", size in bytes, columns of `video_manifest`) of a file."""
        ...

    def recording(
        self, uri: str, path: Path, known_id: Callable[[Iterable[str]], str | None]
    ) -> dict[str, Any]:
        """Columns of `video_manifest` on the recording that a file is a chapter of.

        uri: where it lies, beside the other chapters; path: where it can be read; known_id: the
        recording that the manifest has for one of some uris. Raises BadInputError, OSError.
        """
        ...

    def describe(
        self, columns: dict[str, Any], found: Iterable[tuple[str, bytes, str]]
    ) -> dict[str, Any]:
        """Columns of an accepted file, with what files beside it say of the footage; rejected if
        that makes no sense. found: of each its name, its bytes, and why they are not read (empty:
        they are); what a later one says counts."""
        ...

    def reject_by_size(self, byte_size: int) -> dict[str, Any] | None:
        """Columns of a file that is too large to be read; None if it is not."""
        ...

    def rejected(self, reason: str, detail: str) -> dict[str, Any]:
        """Columns of a file that is rejected: a code of `RejectReason`, and a sentence."""
        ...


class VideoOperator(Protocol):
    """Shape of a backend that looks at whole videos."""

    name: str
    version: str
    quality_tier: str
    weights_hash: str

    def process(
        self,
        video: Mapping[str, Any],
        path: Path,
        max_bytes_in_flight: int,
        beside: Mapping[str, Path | None],
    ) -> ClipOutput:
        """Make rows of a row of `video_manifest`. Raises BadInputError.

        beside: the files beside it that the stage asks for, as far as they are there, by name; None
        in place of one that must not be read.
        """
        ...


class DepthSource(Protocol):
    """Metric depth of pictures."""

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> Sequence[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB of one camera, and its focal length over the picture's width
        (None: not known), to depths along z in metres, (h, w) float of the same view each; what is
        not known is 0 or not finite."""
        ...


class MetricDepth(DepthSource, Protocol):
    """Metric depth of undistorted pictures, for backends that are told which source to take.

    Built as `Class(settings, weights)`: a dict, and the folder of all weights (a `Path`).
    `identity` is what results depend on beside the settings (version, hash of weights), without
    loading a model. Both raise WeightsError for what is missing or broken.
    """

    @staticmethod
    def identity(settings: Mapping[str, Any], weights: Path) -> str: ...
