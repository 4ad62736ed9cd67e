"""An operator whose clips are published as a file beside the video says: killed, held, refused.

`{clip_id}.publish.json`: {"die": n}: the first n times that the clip is to be published its worker
is killed; {"until": path, "first": true}: it waits for that file, each time or the first time only;
{"full": true}: the disk is. What `FakeEstimator` understands holds for the model.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from ego_assets.engine.plan import WorkItem
from ego_assets.engine.workers import lane
from ego_assets.objects.settings import MovementSettings
from tests.engine.fake_backends import FakeEstimator, told

_publish = lane.publish


class BehindEstimator(FakeEstimator):
    on_device = True

    def __init__(self, settings: MovementSettings) -> None:
        super().__init__(settings)
        lane.publish = publish_as_told


def publish_as_told(lake: Any, spec: Any, item: WorkItem, *rest: Any) -> Any:
    folder, clip = Path(item.payload["video"]["uri"]).parent, item.item_id
    number, plan = told(folder, f"{clip}.published", f"{clip}.publish.json")
    until = plan.get("until")
    while until and not Path(until).exists() and (number == 1 or not plan.get("first")):
        time.sleep(0.01)
    if number <= plan.get("die", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if plan.get("full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return _publish(lake, spec, item, *rest)
