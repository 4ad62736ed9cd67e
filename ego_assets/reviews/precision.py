"""Holds probes against what people said: how often a clip that a probe names was rejected.

A probe judges with its default thresholds, and without a look at pictures. A verdict counts while
the rows that it was given for are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from ego_assets import catalog
from ego_assets.reviews.fingerprints import ID, JUDGED
from ego_assets.reviews.standing import Standing
from ego_assets.reviews.store import Kind
from ego_assets.reviews.subjects import clips_of_episodes, finding_of, subject_of
from resources.lake import Lake

_Z = 1.959964
"""Of the normal distribution: 95 % lie within."""


@dataclass(frozen=True)
class ProbePrecision:
    """A probe against the verdicts of people.

    judged: clips and episodes that somebody judged where the probe had something to look at;
    rejected: those of them that were rejected, or whose hands are mixed up; named: those that the
    probe names; hits: those that it names and that were rejected.
    """

    table: str
    probe: str
    severity: str
    judged: int
    rejected: int
    named: int
    hits: int

    @property
    def precision(self) -> float | None:
        """Share of what it names that was rejected; None: it names nothing."""
        return self.hits / self.named if self.named else None

    @property
    def precision_interval(self) -> tuple[float, float] | None:
        """95 % score interval of the precision (Wilson 1927): wide where little was judged."""
        if (share := self.precision) is None:
            return None
        n, z = self.named, _Z
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, middle - reach), min(1.0, middle + reach)

    @property
    def recall(self) -> float | None:
        """Share of what was rejected that it names; None: nothing was rejected."""
        return self.hits / self.rejected if self.rejected else None


def probes_against_reviews(lake: Lake) -> list[ProbePrecision]:
    """Every probe that had something to look at where somebody judged, in the order of the graph.

    Reads only shards with verdicts that count. A clip that was judged both alone and in an episode
    counts twice: these are two verdicts.
    """
    verdicts: dict[str, dict[tuple[Kind, str], bool]] = defaultdict(dict)
    for (kind, subject), judgement in Standing(lake).judgements().items():
        if judgement.state == "current":
            is_bad = judgement.rejected or judgement.review.side_swap
            verdicts[judgement.review.shard][kind, subject] = is_bad
    counts: dict[tuple[str, str], list[int]] = {}
    for shard, said in sorted(verdicts.items()):
        for key, found in _count(lake, shard, said):
            counts[key] = [a + b for a, b in zip(counts.get(key, [0] * 4), found, strict=True)]
    return [
        ProbePrecision(p.table, p.name, p.severity, *counts[p.table, p.name])
        for p in catalog.all_probes()
        if (p.table, p.name) in counts
    ]


def _count(
    lake: Lake, shard: str, said: dict[tuple[Kind, str], bool]
) -> Iterator[tuple[tuple[str, str], tuple[int, int, int, int]]]:
    """{(table, probe)} with judged, rejected, named and hits of a shard."""
    parts: dict[str, list[str]] = {}
    names = [subject for kind, subject in said if kind == "episode"]
    if names:
        rows = lake.read(JUDGED["episode"][0], shard).to_pylist()
        parts = clips_of_episodes(lake, shard, [r for r in rows if r[ID["episode"]] in names])
    for probe in catalog.all_probes():
        finding = finding_of(lake, shard, probe)
        if finding is None or not finding.looked_at:
            continue
        named = {subject_of(offender) for offender in finding.worst}
        hits = {key for key in said if named & {key[1], *parts.get(key[1], ())}}
        rejected = {key for key, is_bad in said.items() if is_bad}
        counted = len(said), len(rejected), len(hits), len(hits & rejected)
        yield (probe.table, probe.name), counted
