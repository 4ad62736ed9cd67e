"""Takes the pictures of the docs: sample videos, the real graph, a real UI, a headless Chromium.

`make pictures`, or `python docs/take_pictures.py [FOLDER]` (docs/pictures unless said). It takes
some minutes: everything that is shown has been run.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from click.testing import CliRunner  # noqa: E402

from dagster_project.cli import main as ego  # noqa: E402
from dagster_project.runs import run_shards  # noqa: E402
from ego_assets.galleries.files import url_of  # noqa: E402
from ego_assets.intake.shards import RawFile, write_shard  # noqa: E402
from resources.lake import Lake  # noqa: E402
from samples import render_sample  # noqa: E402
from tests.dagster_project.ui import Server, backfill, browser_page, ego_up  # noqa: E402

WIDTH, HEIGHT = 1720, 1000
SHOWN_FOLDER = "/data"
"""In the pictures, in place of the temporary folder that all lies in."""
RENAME = """
([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
  }
}
"""
SEEDS = (3, 4, 6)
"""Of the sample videos, one a shard. In the last one the hands jitter: a failed check."""


def prepare(folder: Path) -> Lake:
    """A lake with a few shards: good ones, and one with a file that is no video."""
    lake, raw = Lake(folder / "lake"), folder / "raw"
    for number, seed in enumerate(SEEDS):
        video = render_sample(raw, seed=seed, duration_s=2.0, name=f"kitchen_{number:02d}")
        files = [video]
        if seed == SEEDS[0]:
            files.append(raw / "cut_off.mp4")
            files[1].write_bytes(video.read_bytes()[:20_000])
        write_shard(lake, [RawFile(str(f), f.stat().st_size, 2.0) for f in files])
    run_shards(lake.location, lake.shards())
    CliRunner().invoke(ego, ["report", "--lake", lake.location], catch_exceptions=False)
    return lake


def save(page: Any, path: Path, folder: Path, height: int = HEIGHT) -> None:
    """The page as it is, but for the name of the temporary folder; small: 256 colours, or for what
    shows video a JPEG of 1200 px."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(3000)
    page.evaluate(RENAME, [str(folder), SHOWN_FOLDER])
    assert str(folder) not in page.inner_text("body")
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        if path.suffix == ".jpg":
            small = picture.convert("RGB").resize((1200, 1200 * height // WIDTH))
            small.save(path, quality=80, optimize=True)
        else:
            picture.convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def take(server: Server, page: Any, target: Path, backfill_id: str) -> None:
    from playwright.sync_api import expect

    folder = server.lake.root.parent
    shard = server.lake.shards()[0]

    def seen(text: str) -> Any:
        found = page.get_by_text(text).first
        expect(found).to_be_visible(timeout=120_000)
        return found

    page.set_viewport_size({"width": WIDTH, "height": 1300})  # the graph fits itself into it once
    page.goto(f"{server.url}/asset-groups", wait_until="domcontentloaded")
    expect(page.get_by_text("masks", exact=True).last).to_be_visible(timeout=120_000)
    page.keyboard.press("Alt+e")  # expands the groups
    seen("robot_mappings")
    save(page, target / "asset_graph.png", folder, height=1300)
    page.goto(f"{server.url}/assets/robot_mappings?view=overview")
    expect(page.locator("img[src^='/previews/']").first).to_be_visible(timeout=120_000)
    seen("Show more").click()
    save(page, target / "overview.png", folder, height=1150)
    page.goto(f"{server.url}/assets/hand_poses?view=partitions&partition={shard}")
    expect(page.locator("img[src^='/previews/']").first).to_be_visible(timeout=120_000)
    save(page, target / "partition_page.jpg", folder)
    page.goto(f"{server.url}{url_of(server.lake.shards()[-1])}")
    page.eval_on_selector_all("video", "all => all.forEach(video => video.controls = false)")
    save(page, target / "gallery.jpg", folder, height=760)
    page.goto(f"{server.url}/assets/hand_poses?view=checks&checkDetail=hands_do_not_jitter")
    seen("hand tracks that jitter")
    seen("Failed")
    seen("look it up")
    save(page, target / "failed_check.png", folder)
    page.goto(f"{server.url}/automation")
    seen("follow_sensor")
    save(page, target / "automation.png", folder, height=690)
    page.goto(f"{server.url}/runs/b/{backfill_id}")
    seen("video_manifest")
    save(page, target / "backfill_page.png", folder, height=500)
    (report,) = (server.lake.root / "reports").glob("*.html")
    page.goto(report.as_uri())
    save(page, target / "report.png", folder, height=1300)


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ego-") as name:
        folder = Path(name).resolve()
        lake = prepare(folder)
        with ego_up(lake, folder / "up.log") as server, browser_page(WIDTH, HEIGHT) as page:
            done = backfill(server, ("video_manifest", "clips"), lake.shards(), 900)
            take(server, page, target, done["id"])


if __name__ == "__main__":
    main()
