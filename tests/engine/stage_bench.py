"""A lake with two videos: one take of three clips, and one clip alone."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.catalog import STAGES, TABLES
from ego_assets.engine.plan import StageSpec
from ego_assets.models import registry
from resources.lake import Lake, Provenance, file_item_id
from resources.ledger import Ledger
from resources.processes.fork_server import Forked
from resources.processes.last_words import LastWords

SHARD = "20260101-0000"


def write_video(path: Path, frames: int = 12) -> None:
    """A bar that moves over a grey wall: nothing that looks like a cut or a fade."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = np.full((32, 32, 3), 90, np.uint8)
            picture[:, i % 32] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def provenance(fingerprint: str) -> Provenance:
    names = Provenance.__dataclass_fields__
    values: dict[str, Any] = dict.fromkeys(names, "test") | {
        "attempt": 1,
        "fingerprint": fingerprint,
        "token": 1,
    }
    return Provenance(**values)


def blank_row(table: str, **values: Any) -> dict[str, Any]:
    fields = TABLES[table].model_fields
    return dict.fromkeys(fields) | values


@dataclass
class Bench:
    """A lake on disk, its ledger, and the spec of a fake stage over it."""

    folder: Path
    lake: Lake
    ledger: Ledger
    spec: StageSpec

    def behave(self, clip_id: str, **plan: Any) -> None:
        (self.folder / "raw" / f"{clip_id}.json").write_text(json.dumps(plan))

    def attempts(self, clip_id: str) -> int:
        path = self.folder / "raw" / f"{clip_id}.attempts"
        return path.stat().st_size if path.exists() else 0

    def rerun(self, **changes: Any) -> StageSpec:
        return replace(self.spec, **{"run_id": "again"} | changes)


def spec_for(stage: str, lake: Lake, ledger: Ledger, shard: str, **changes: Any) -> StageSpec:
    """A stage of the graph by its default backend, with the settings that are given."""
    declared = STAGES[stage]
    entry = registry.default(declared.operator)
    values: dict[str, Any] = {
        "name": stage,
        "item": declared.item,
        "tables": declared.tables,
        "settings": {},
        "lake_root": lake.location,
        "ledger_url": ledger.url,
        "shard": shard,
        "run_id": "first",
        "operator": declared.operator,
        "backend": entry.name,
        "operator_version": registry.version(entry.operator, entry.name)[0],
        "inputs": (),
        "beside": declared.beside,
        "backoff_s": 0.01,
    }
    return StageSpec(**(values | changes))


def make_bench(
    tmp_path: Path, videos: dict[str, int] | None = None, lake: Lake | None = None
) -> Bench:
    """The lake, its raw videos ({name: clips}) beside it, nothing done yet."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lake = lake or Lake(tmp_path / "lake")
    ledger = Ledger.beside(tmp_path / "lake")
    files = []
    for name, clips in (videos or {"long": 3, "short": 1}).items():
        path = raw / f"{name}.mp4"
        write_video(path)
        files.append({"uri": str(path), "byte_size": path.stat().st_size, "duration_s": 1.2})
        _publish_video(lake, path, name, clips)
    lake.write_shard(SHARD, {"files": files})
    spec = spec_for(
        "object_movements",
        lake,
        ledger,
        SHARD,
        backend="tests.engine.fake_backends:FakeEstimator",
        operator_version="1",
    )
    return Bench(tmp_path, lake, ledger, spec)


def _publish_video(lake: Lake, path: Path, name: str, clips: int) -> None:
    video_id = f"{name:0<16}"[:16]
    row = blank_row(
        "video_manifest",
        video_id=video_id,
        shard=SHARD,
        uri=str(path),
        byte_size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        accepted=True,
        width_px=32,
        height_px=32,
        frame_count=12,
        average_rate_fps=10.0,
        duration_s=1.2,
        camera_model="PINHOLE",
        fx_px=30.0,
        fy_px=30.0,
        cx_px=15.5,
        cy_px=15.5,
        intrinsics_source="assumed_fov",
    )
    batch = TABLES["video_manifest"].from_rows([row])
    lake.publish("video_manifest", SHARD, file_item_id(str(path)), batch, provenance("m"))
    size = 12 // clips
    rows = [
        blank_row(
            "clips",
            video_id=video_id,
            shard=SHARD,
            clip_id=f"{video_id}-{i:04d}",
            clip_index=i,
            take_id=f"{video_id}-t000",
            index_in_take=i,
            start_frame=i * size,
            end_frame=(i + 1) * size,
            start_pts_s=i * size / 10,
            end_pts_s=(i + 1) * size / 10,
            context_frames=0,
            split_reason="length" if i else "start",
            estimated_cost=1.0,
        )
        for i in range(clips)
    ]
    batch = TABLES["clips"].from_rows(rows)
    lake.publish("clips", SHARD, video_id, batch, provenance("c"))


def as_forked(process: BaseProcess, connection: Connection) -> Forked:
    """Start a process of the standard library, as one that a fork server had started."""
    process.start()
    assert process.pid
    ended = Connection(os.dup(process.sentinel), writable=False)
    return Forked(process.pid, os.pidfd_open(process.pid), connection, ended, LastWords())
