"""Writes what a mining run found, the manifest last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jobs import storage
from jobs.mining.captions import CaptionContent, read_caption
from jobs.mining.config import MiningConfig
from jobs.mining.examples import choose_examples
from jobs.mining.filters import FilterOutcome
from jobs.mining.gallery import PictureSource
from jobs.mining.ledger import Ledger
from jobs.mining.mined import MinedPairs
from jobs.mining.pairs import OrderedPairs, order_pairs, write_pairs
from jobs.mining.report import write_report
from jobs.mining.report_numbers import ReportSource
from jobs.mining.result import (
    MiningResult,
    count_all,
    locate_result,
    used_rows,
    write_manifest,
)
from jobs.mining.samples import Samples
from jobs.mining.samples_table import write_samples
from jobs.mining.spool import ImageSpool
from jobs.progress import Progress

_CACHED_CAPTIONS = 65_536


@dataclass(frozen=True, slots=True)
class Findings:
    """All that is written.

    Attributes:
        config: All settings.
        samples: Every sample of the input.
        outcomes: What each filter did.
        mined: Styles and pairs.
        input_hash: Of the input shards.
    """

    config: MiningConfig
    samples: Samples
    outcomes: Sequence[FilterOutcome]
    mined: MinedPairs
    input_hash: str


def write_output(
    found: Findings,
    ledger: Ledger,
    output_uri: str,
    work_uri: str,
    progress: Progress,
    before_end: Callable[[], None],
) -> MiningResult:
    """Write everything; ``before_end`` is called when only the manifest is missing."""
    samples, mined, config = found.samples, found.mined, found.config
    sha = samples.sha[mined.rows]
    ordered = order_pairs(mined, sha)
    used = used_rows(mined)
    report = _report_source(found, ordered)
    examples = choose_examples(mined, report.reason, report.reason_names, report.drops, config.seed)
    shown = examples.picture_rows(mined)

    @lru_cache(_CACHED_CAPTIONS)
    def read(caption: str) -> CaptionContent:
        return read_caption(caption, config.captions.style_words)

    with ImageSpool() as spool:
        spool.fill(
            samples,
            np.union1d(used, shown).astype(np.int64),
            config,
            storage.join_uri(work_uri, "images"),
            progress,
        )
        shards = write_pairs(mined, ordered, spool, read, config.shard_mib, output_uri, progress)
        keys = samples.read(np.array(examples.key_rows(), np.int64), ["key"])
        pictures = PictureSource(
            spool.get,
            {row: read(spool.texts(row).caption).prompt for row in shown},
            {values["row"]: values["key"] for values in keys},
        )
        write_report(storage.join_uri(output_uri, "report"), report, examples, pictures)
    write_samples(samples, mined, used, storage.join_uri(output_uri, "samples.parquet"))
    members = dict(zip(mined.names, mined.styles.members, strict=True))
    ledger.extended(members, mined.splits, sha).save(output_uri)
    before_end()
    content_hash = write_manifest(
        storage.join_uri(output_uri, "manifest.json"),
        config=config,
        inputs=samples.shards,
        input_hash=found.input_hash,
        counts=dict(report.counts),
        drops=dict(report.drops),
        cut_threshold=mined.cut.threshold,
        shards=shards,
    )
    storage.delete(work_uri)
    return locate_result(output_uri, dict(report.counts), content_hash)


def _report_source(found: Findings, ordered: OrderedPairs) -> ReportSource:
    samples, mined = found.samples, found.mined
    return ReportSource(
        config=found.config,
        input_hash=found.input_hash,
        counts=count_all(samples, mined, ordered),
        drops=samples.drop_counts(),
        outcomes=found.outcomes,
        shard_names=[shard.name for shard in samples.shards],
        shard=np.repeat(np.arange(len(samples.shards)), np.diff(samples.first)),
        reason=samples.reason,
        reason_names=samples.reason_names,
        scores={
            "aesthetic": samples.aesthetic,
            "watermark": samples.watermark,
            "nsfw": samples.nsfw,
        },
        ignored_members=samples.ignored_members,
        mined=mined,
    )
