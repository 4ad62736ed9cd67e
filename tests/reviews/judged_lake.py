"""A lake with some episodes of numbered pictures, and reviews of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.catalog import TABLES
from ego_assets.reviews.standing import Standing
from ego_assets.reviews.store import Kind, Review
from resources.lake import Lake
from tests.exports.numbered_lake import NumberedLake, make, provenance

from tests.episodes.made_footage import SHARD, MadeVideo, cut  # isort: skip


def review(subject: str = "a-e000000", **said: Any) -> Review:
    """A review of something that no lake has."""
    default = {"kind": "episode", "shard": SHARD, "verdict": "accept", "reason": ""}
    default |= {"side_swap": False, "reviewer": "", "fingerprint": "f", "made_by": ""}
    return Review.now(subject=subject, **default | said)


@dataclass
class JudgedLake:
    """Of a video with three takes; each is a clip and an episode of three seconds."""

    made: NumberedLake
    video: MadeVideo

    @classmethod
    def build(cls, folder: Path) -> JudgedLake:
        video = MadeVideo(count=270, cuts=(90, 180))
        # Without poses, nothing is drawn over the numbers in the pictures.
        found = cls(make(folder, video, more={"hand_poses": []}), video)
        lens = {"camera_model": "PINHOLE", "fx_px": 200.0, "fy_px": 200.0, "cx_px": 96.0}
        lens |= {"cy_px": 54.0, "distortion": []}
        manifest = [row | lens for row in found.made.tables["video_manifest"]]
        found._publish("video_manifest", manifest, SHARD, 1)
        found._publish("clips", video.clips, "clips", 0)
        return found

    @property
    def lake(self) -> Lake:
        return self.made.lake

    @property
    def episodes(self) -> list[str]:
        return sorted(row["episode_id"] for row in self.made.tables["episodes"])

    def judge(self, subject: str, kind: Kind = "episode", **said: Any) -> None:
        """What the page does, for rows as they are now."""
        standing = Standing(self.lake)
        made_by, found = standing.fingerprints.of(kind, SHARD)
        known = {"fingerprint": found[subject], "made_by": made_by}
        standing.files.add(review(subject, kind=kind, **known | said))

    def run_again(self, token: int, *, moved: str | None = None) -> None:
        """Publish the episodes once more; of one, `moved`, the hands are elsewhere."""
        video = replace(self.video)
        if moved is not None:
            first = next(
                row["start_frame"]
                for row in self.made.tables["episodes"]
                if row["episode_id"] == moved
            )
            video.wrist_m = np.array(video.wrist_m)
            video.wrist_m[first + 20 : first + 40] += [0.0, 0.0, 0.01]
        for table, rows in cut(video, validation_share=0.0).items():
            self._publish(table, rows, "unit", token)

    def _publish(self, table: str, rows: list[dict[str, Any]], item: str, token: int) -> None:
        filled = [dict.fromkeys(TABLES[table].arrow_schema().names) | row for row in rows]
        made = replace(provenance(item), token=token, fingerprint=f"f-{item}-{token}")
        self.lake.publish(table, SHARD, item, TABLES[table].from_rows(filled), made)
