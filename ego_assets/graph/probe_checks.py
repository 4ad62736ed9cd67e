"""The quality probes as asset checks of a table, shard by shard.

Here: reading what the probes need, running them, findings as check results, and the baseline of
good shards. Not here: what is asked (`probes.py` of each room), when checks run (`checks`).

A probe that crashes is a failed check that says so: it never fails the step.
"""

from __future__ import annotations

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckResult, AssetCheckSeverity, AssetCheckSpec

from ego_assets import catalog
from ego_assets.graph.check_results import Places, check_result
from ego_assets.quality import baselines, drift
from ego_assets.quality.failed import failing_shards, note_failed
from ego_assets.quality.finding import Evidence, Finding, Probe
from ego_assets.quality.settings import ProbeSettings
from ego_assets.vision.change import picture_change
from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger.sources import Sources
from resources.raw.presence import RawAwayError
from resources.raw.reader import RawReader
from resources.raw.scratch import ScratchError

LIKE_BEFORE = "shard_is_like_those_before"
FITS_CONTRACT = "fits_contract"
KEEP_APPEARING = "things_keep_appearing"
LOOKS = 4
LOOK_SIDE_PX = 160
AWAY_S = 60.0
"""How long the looks at a shard wait for places that are away."""
_SEVERITY = {"warn": AssetCheckSeverity.WARN, "error": AssetCheckSeverity.ERROR}


def quality_specs(table: str) -> list[AssetCheckSpec]:
    """What `quality_results` yields for a table, in its order."""
    said = {p.name: p.describe for p in catalog.probes(table)}
    if catalog.info(table).drift:
        said[LIKE_BEFORE] = _sentence(drift.shard_is_like_those_before)
    if catalog.info(table).expects_things:
        said[KEEP_APPEARING] = _sentence(drift.things_keep_appearing)
    return [AssetCheckSpec(name, asset=table, description=text) for name, text in said.items()]


def quality_results(
    lake: Lake,
    table: str,
    shards: list[str],
    settings: ProbeSettings,
    ledger: Ledger | None = None,
    broken: Mapping[str, str] | None = None,
) -> Iterator[AssetCheckResult]:
    """One result a probe of a table, over all `shards`; remembers the good ones.

    ledger: knows whether raw files are what they were; broken: why shards break the contract, which
    is noted with what fails here.
    """
    severity = _severities(table)
    findings: dict[str, dict[str, Finding]] = defaultdict(dict)
    crashes: dict[str, str] = {}
    for shard in sorted(shards):
        _ShardQuality(lake, table, shard, settings, ledger, (broken or {}).get(shard)).collect(
            findings, crashes
        )
    elsewhere = failing_shards(lake, table)
    places = Places(lake, shards)
    for spec in quality_specs(table):
        others = {s: w for s, w in elsewhere.get(spec.name, {}).items() if s not in shards}
        if spec.name == KEEP_APPEARING:
            others = {}  # it looks at all shards, whichever is asked about
        level = severity.get(spec.name, AssetCheckSeverity.WARN)
        if spec.name in crashes:
            yield AssetCheckResult(
                asset_key=table,
                check_name=spec.name,
                passed=False,
                severity=level,
                description=f"the probe itself failed: {crashes[spec.name].splitlines()[-1]}",
                metadata={"traceback": dg.MetadataValue.text(crashes[spec.name])},
            )
        elif spec.name in findings:
            yield check_result(table, findings[spec.name], level, others, places)
        else:
            nothing = Finding(
                spec.name, True, None, 0.0, "", "not judged: there is no shard to look at"
            )
            yield check_result(table, {"": nothing}, level, others, places)


def _severities(table: str) -> dict[str, AssetCheckSeverity]:
    """Of all checks that are no mere warnings, and some that are."""
    found = {p.name: _SEVERITY[p.severity] for p in catalog.probes(table)}
    return found | dict.fromkeys((KEEP_APPEARING, FITS_CONTRACT), AssetCheckSeverity.ERROR)


class _ShardQuality:
    """The probes of one table over one shard; what they read is read once."""

    def __init__(
        self,
        lake: Lake,
        table: str,
        shard: str,
        settings: ProbeSettings,
        ledger: Ledger | None = None,
        broken: str | None = None,
    ) -> None:
        self.lake = lake
        self.failed = {} if broken is None else {FITS_CONTRACT: broken}
        self.table = table
        self.shard = shard
        self.settings = settings
        self.raw = RawReader(memory=Sources(ledger) if ledger is not None else None)
        self.drift = drift.drift_of(table)
        self._patience_s = AWAY_S

    def collect(self, findings: dict[str, dict[str, Finding]], crashes: dict[str, str]) -> None:
        """Add this shard's finding of every probe, or the traceback of one that crashed."""
        asked: dict[str, Callable[[], Finding]] = {
            p.name: partial(self._ask, p) for p in catalog.probes(self.table)
        }
        if catalog.info(self.table).expects_things:
            asked[KEEP_APPEARING] = self._streak
        if self.drift is not None:
            asked[LIKE_BEFORE] = self._drift
        warned: set[str] = set()
        failed = dict(self.failed)
        places = Places(self.lake, [self.shard])
        is_good = not self.failed
        for name, ask in asked.items():
            try:
                finding = ask()
            except Exception:  # of any kind: a probe must not stop the others, nor the step
                crashes[name] = f"shard {self.shard}\n{traceback.format_exc(limit=-4)}".strip()
                failed[name] = f"the probe itself failed: {crashes[name].splitlines()[-1]}"
                is_good = False
            else:
                findings[name][self.shard] = finding
                if not finding.passed:
                    failed[name] = places.told(finding)
                if not finding.passed and name in self.may_warn:
                    warned.add(name)
                else:
                    is_good &= finding.passed
        try:
            self._note(failed)
            self._remember(is_good, warned)
        except Exception:
            crashes[LIKE_BEFORE] = traceback.format_exc(limit=-4).strip()

    def _ask(self, probe: Probe) -> Finding:
        return probe(Evidence(self.table, self.tables, self.look), self.settings)

    @cached_property
    def tables(self) -> Mapping[str, pa.Table]:
        needs: dict[str, dict[str, None]] = defaultdict(dict)
        reads = [p.reads for p in catalog.probes(self.table)]
        if self.drift is not None:
            reads.append(self.drift.reads)
        for table, columns in (i for r in reads for i in r.items()):
            needs[table] |= dict.fromkeys(columns)
        return {t: self.lake.read(t, self.shard, columns=list(c)) for t, c in needs.items()}

    @cached_property
    def histograms(self) -> drift.Histograms:
        assert self.drift is not None
        return drift.histograms(self.drift, drift.features(self.drift, self.tables))

    def look(self, clip_id: str, first: int, last: int) -> float | None:
        """Median change of the picture between two frames; None if they cannot be read."""
        from botocore.exceptions import BotoCoreError, ClientError

        from ego_assets.media.decode import ClipFrames

        columns = ["video_id", "uri", "sha256", "video_stream_index"]
        rows = self.lake.read("video_manifest", self.shard, columns=columns)
        video = rows.filter(pc.field("video_id") == clip_id.rpartition("-")[0]).to_pylist()[0]
        indices = np.unique(np.linspace(first, last, LOOKS).astype(int)).tolist()
        while True:
            try:
                with self.raw.hold(video["uri"], video["sha256"]) as path:
                    frames = ClipFrames(
                        path, first, last + 1, stream_index=video["video_stream_index"]
                    )
                    read = frames.read(max_side_px=LOOK_SIDE_PX, indices=indices)
                    return picture_change([f.image for f in read])
            except RawAwayError:
                if self._patience_s <= 0:
                    return None
                time.sleep(1)
                self._patience_s -= 1
            except (OSError, ValueError, ScratchError, BotoCoreError, ClientError):
                return None  # gone, changed, damaged, forbidden, or no room for it: others say so

    def _drift(self) -> Finding:
        before = baselines.good_shards(self.lake, self.table, but=self.shard)
        found = drift.shard_is_like_those_before(self.histograms, before, self.settings)
        return replace(found, name=LIKE_BEFORE)

    def _streak(self) -> Finding:
        run = drift.empty_videos(self.tables[self.table], self.tables["clips"])
        runs, at = baselines.streak(self.lake, self.table, self.shard, run)
        found = drift.things_keep_appearing(runs, at, self.settings)
        return replace(found, name=KEEP_APPEARING)

    @property
    def may_warn(self) -> set[str]:
        """Probes whose failure can be what is usual here. Errors and drift cannot."""
        return {p.name for p in catalog.probes(self.table) if p.severity == "warn"}

    def _note(self, failed: Mapping[str, str]) -> None:
        """Note what failed, for `ego status`: Dagster keeps a check's last result, not each
        shard's."""
        severity = _severities(self.table)
        noted = [
            {
                "check": name,
                "severity": severity.get(name, AssetCheckSeverity.WARN).value.lower(),
                "reason": why,
            }
            for name, why in failed.items()
        ]
        note_failed(self.lake, self.table, self.shard, noted)

    def _remember(self, is_good: bool, warned: set[str]) -> None:
        """A good shard joins the baseline. What a probe says of most shards is how this footage
        is: were it to keep them out, drift would never be judged."""
        window, least = self.settings.baseline_window, self.settings.min_baseline_shards
        known = baselines.warnings(self.lake, self.table, self.shard, warned, window)
        often = {n for n in warned if sum(n in one for one in known) > len(known) / 2}
        usual = often if len(known) >= least else set()
        if self.drift is None:
            return
        if is_good and warned <= usual:
            baselines.remember_good(self.lake, self.table, self.shard, self.histograms, window)
        else:
            baselines.forget(self.lake, self.table, self.shard)


def _sentence(function: Callable[..., object]) -> str:
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())
