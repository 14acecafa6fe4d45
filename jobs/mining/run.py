"""The mining job: shards of captioned images in, style pairs out."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from i2l_model.errors import InputError
from jobs import storage
from jobs.cluster import ensure_ray, worker_errors
from jobs.mining.captions import CaptionContent, read_caption
from jobs.mining.components import find_styles
from jobs.mining.config import MiningConfig
from jobs.mining.cut import Cut, candidate_edges, choose_cut
from jobs.mining.dedup import drop_copies, drop_near_duplicates
from jobs.mining.encoders import encoder_entry
from jobs.mining.examples import choose_examples
from jobs.mining.features import InputShard, Samples, extract_features
from jobs.mining.filters import apply_filters
from jobs.mining.gallery import PictureSource
from jobs.mining.mined import MinedPairs
from jobs.mining.neighbours import local_scale, search_neighbours
from jobs.mining.pairs import describe_pairs, write_index, write_pair_shards
from jobs.mining.report import write_report
from jobs.mining.report_numbers import ReportSource
from jobs.mining.result import (
    MiningResult,
    count_all,
    drop_counts,
    finished_result,
    locate_result,
    result_hash,
    write_manifest,
)
from jobs.mining.samples_table import write_samples
from jobs.mining.selection import select_pairs
from jobs.mining.split import assign_splits, style_name
from jobs.mining.spool import ImageSpool
from jobs.progress import Progress
from jobs.provenance import file_hash, manifest_hash
from jobs.shards import list_shards

logger = logging.getLogger(__name__)


@worker_errors()
def run_mining(
    config: MiningConfig, input_uri: str, output_uri: str, progress: Progress
) -> MiningResult:
    """Mine style pairs from WebDataset shards.

    Writes ``index.parquet``, ``shards/<split>/``, ``samples.parquet`` (one row an input sample,
    kept or dropped with its reason), ``report/`` and, last, ``manifest.json``. A finished output
    of the same settings and input is returned as it is; after a kill, or with other thresholds,
    shards whose features are there already are not decoded again.

    Args:
        config: All settings.
        input_uri: A folder of ``.tar`` shards, one tar, or a brace pattern.
        output_uri: Folder to write to, outside of the input; its ``shards/`` holds no input.
        progress: Told about each stage.

    Raises:
        InputError: If the input is missing or empty, lies where pairs are written, or holds too
            few styles to split.
    """
    input_uri, output_uri = storage.absolute_uri(input_uri), storage.absolute_uri(output_uri)
    style_entry = encoder_entry(config.style_encoder, "style")
    encoder_entry(config.content_encoder, "content")
    input_shards = list_shards(input_uri)
    _require_apart(input_uri, input_shards, output_uri)

    inputs = _hash_inputs(input_shards, progress)
    input_hash = manifest_hash([{"sha256": i.sha256, "size": i.size} for i in inputs])
    finished = finished_result(output_uri, result_hash(config), input_hash)
    if finished is not None:
        logger.info("%s is finished for this input and these settings", output_uri)
        progress.update("mine", 1, 1, "already finished, nothing to do")
        return finished

    ensure_ray()
    storage.delete(storage.join_uri(output_uri, "manifest.json"))
    samples, num_computed = extract_features(config, inputs, output_uri, progress)
    logger.info("%d of %d shards embedded, the others were there", num_computed, len(inputs))
    apply_filters(samples, config)
    drop_copies(samples, config.dedup)
    _require_images(samples, input_uri)
    if config.cut.min_style_similarity is None:
        mined = _mine(samples, config, style_entry.min_similarity, progress)
    else:
        mined = _mine(samples, config, config.cut.min_style_similarity, progress)
    return _write(samples, mined, config, inputs, input_hash, output_uri, progress)


def _write(
    samples: Samples,
    mined: MinedPairs,
    config: MiningConfig,
    inputs: list[InputShard],
    input_hash: str,
    output_uri: str,
    progress: Progress,
) -> MiningResult:
    """Write everything, the manifest last."""
    captions = {int(row): _caption(samples, int(row), config) for row in mined.rows}
    records = describe_pairs(
        mined.selection.pairs, mined.rows.tolist(), samples, captions, mined.names, mined.splits
    )
    used = {row for record in records for row in (record.target, *record.refs)}
    counts, drops = count_all(samples, records), drop_counts(samples)
    report = _report_source(samples, mined, counts, drops, config, input_hash)
    examples = choose_examples(mined, report.reason, report.reason_names, drops, config.seed)
    with ImageSpool() as spool:
        spool.fill(samples, sorted({*used, *examples.picture_rows(mined)}), config, progress)
        pictures = PictureSource(
            spool.get,
            {row: _caption(samples, row, config).prompt for row in examples.picture_rows(mined)},
            {row: samples.key[row] for row in examples.key_rows()},
        )
        shards_written = write_pair_shards(records, spool, config.shard_mib, output_uri, progress)
        write_index(records, storage.join_uri(output_uri, "index.parquet"))
        write_samples(samples, mined, used, storage.join_uri(output_uri, "samples.parquet"))
        write_report(storage.join_uri(output_uri, "report"), report, examples, pictures)
    content_hash = write_manifest(
        storage.join_uri(output_uri, "manifest.json"),
        config=config,
        inputs=inputs,
        input_hash=input_hash,
        counts=counts,
        drops=drops,
        cut_threshold=mined.cut.threshold,
        shards=shards_written,
    )
    return locate_result(output_uri, counts, content_hash)


def _report_source(
    samples: Samples,
    mined: MinedPairs,
    counts: dict[str, int],
    drops: dict[str, int],
    config: MiningConfig,
    input_hash: str,
) -> ReportSource:
    shards, shard = np.unique(np.array(samples.shard), return_inverse=True)
    reasons, reason = np.unique(np.array(samples.reason), return_inverse=True)
    return ReportSource(
        config=config,
        input_hash=input_hash,
        counts=counts,
        drops=drops,
        outcomes=(),
        shard_names=[uri.rpartition("/")[2] for uri in shards.tolist()],
        shard=shard,
        reason=reason,
        reason_names=reasons.tolist(),
        scores={},
        ignored_members={},
        mined=mined,
    )


def _require_apart(input_uri: str, input_shards: list[str], output_uri: str) -> None:
    """Raise if the output would be read as input, or pairs be written among the input."""
    if storage.is_inside(output_uri, input_uri):
        raise InputError("output", output_uri, "lies inside the input", "choose another folder")
    pairs_uri = storage.join_uri(output_uri, "shards")
    for shard in input_shards:
        if storage.is_inside(shard, pairs_uri):
            problem = f"holds input shards under shards/ ({shard}), where the pairs go"
            raise InputError("output", output_uri, problem, "choose another folder")


def _hash_inputs(shards: list[str], progress: Progress) -> list[InputShard]:
    found = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for shard in pool.map(_hash_input, shards):
            found.append(shard)
            progress.update("hash", len(found), len(shards))
    return found


def _hash_input(shard: str) -> InputShard:
    return InputShard(shard, file_hash(shard), storage.file_size(shard))


def _require_images(samples: Samples, input_uri: str) -> None:
    """Raise if there is nothing to pair, saying what became of the input."""
    if not len(samples):
        raise InputError("input", input_uri, "holds no samples", "give shards with images")
    if sum(not reason for reason in samples.reason) < 2:
        drops = ", ".join(f"{reason} {n}" for reason, n in drop_counts(samples).items())
        fix = "give shards with images and captions, or relax mining.ingest and mining.filters"
        raise InputError("input", input_uri, f"holds no two usable images ({drops})", fix)


def _require_trust(cut: Cut, num_candidates: int, config: MiningConfig) -> None:
    """Raise if nothing in the input looks like a style that repeats."""
    if not cut.trusted:
        raise InputError(
            "input",
            f"{num_candidates} candidate links, {cut.precision:.0%} estimated to be right",
            f"shows no styles that repeat ({config.cut.min_precision:.0%} needed)",
            "give at least three images of each style, or lower mining.cut.min_precision",
        )


def _caption(samples: Samples, row: int, config: MiningConfig) -> CaptionContent:
    return read_caption(samples.caption[row], config.captions.style_words)


def _mine(
    samples: Samples, config: MiningConfig, min_similarity: float, progress: Progress
) -> MinedPairs:
    """From features to selected pairs with their splits; nothing is written."""
    is_kept = np.array([not samples.reason[i] for i in samples.embedded])
    rows, style = samples.embedded[is_kept], samples.style[is_kept]
    content = samples.content[is_kept].astype(np.float32)
    neighbours = search_neighbours(style, config, progress)
    stays = drop_near_duplicates(samples, rows, neighbours, content, config.dedup)
    if not stays.all():
        rows, content = rows[stays], content[stays]
        neighbours = neighbours.within(stays)
    edges = candidate_edges(
        neighbours, local_scale(neighbours, config.search.csls_neighbours), min_similarity
    )
    cut = choose_cut(edges, len(rows), config.cut, config.seed)
    _require_trust(cut, len(edges), config)
    styles = find_styles(edges, cut, len(rows), neighbours.index.shape[1], config.cut)
    heads = [_caption(samples, int(row), config).head for row in rows]
    selection = select_pairs(styles, heads, content, config.selection, config.seed)
    names = [style_name([samples.sha256[rows[i]] for i in members]) for members in styles.members]
    paired = sorted({pair.style for pair in selection.pairs})
    splits = assign_splits([names[number] for number in paired], config.split)
    return MinedPairs(rows, content, edges, cut, styles, selection, names, splits)
