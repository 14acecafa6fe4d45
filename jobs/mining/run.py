"""The mining job: shards of captioned images in, style pairs out."""

import logging
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs import storage
from jobs.cluster import ensure_ray, worker_errors
from jobs.mining.components import find_styles
from jobs.mining.config import MiningConfig
from jobs.mining.cut import Cut, candidate_edges, choose_cut
from jobs.mining.dedup import drop_copies, drop_near_duplicates
from jobs.mining.encoders import encoder_entry
from jobs.mining.feature_plan import plan_features
from jobs.mining.features import compute_features, feature_uri
from jobs.mining.filters import apply_filters
from jobs.mining.ledger import Ledger
from jobs.mining.mined import MinedPairs
from jobs.mining.neighbours import local_scale, search_neighbours
from jobs.mining.output import Findings, write_output
from jobs.mining.result import MiningResult, finished_result, result_hash, write_run
from jobs.mining.samples import InputShard, Samples, load_samples
from jobs.mining.selection import select_pairs
from jobs.mining.split import assign_splits, settle_styles
from jobs.progress import Progress
from jobs.provenance import file_hash, manifest_hash
from jobs.shards import input_root, list_shards

logger = logging.getLogger(__name__)

WORK_FOLDER = "work"
"""Below the output: what a killed run leaves for the next one; gone when a run is finished."""


@worker_errors()
def run_mining(
    config: MiningConfig, input_uri: str, output_uri: str, progress: Progress
) -> MiningResult:
    """Mine style pairs from WebDataset shards.

    Writes ``index.parquet``, ``shards/<split>/``, ``samples.parquet`` (one row an input sample,
    kept or dropped with its reason), ``report/``, ``ledger.parquet``, ``run.json`` and, last,
    ``manifest.json``. All but ``run.json`` depend on input and settings alone, wherever they lie.
    A finished output of the same settings and input is returned as it is; after a kill, or with
    other thresholds, shards whose features are there already are not decoded again. With more
    input, pictures that had a split keep it.

    Args:
        config: All settings.
        input_uri: A folder of ``.tar`` shards, one tar, or a brace pattern.
        output_uri: Folder to write to, outside of the input; its ``shards/`` holds no input.
        progress: Told about each stage.

    Raises:
        InputError: If the input is missing or empty, lies where pairs are written, or holds too
            few styles to split.
    """
    started = time.time()
    output_uri = storage.absolute_uri(output_uri)
    plan = plan_features(config)
    shard_uris = list_shards(input_uri)
    _require_apart(input_uri, shard_uris, output_uri)
    inputs = _hash_inputs(shard_uris, input_root(input_uri), progress)
    input_hash = manifest_hash([{"sha256": i.sha256, "size": i.size} for i in inputs])
    work_uri = storage.join_uri(output_uri, WORK_FOLDER)
    finished = finished_result(output_uri, result_hash(config), input_hash)
    if finished is not None:
        logger.info("%s is finished for this input and these settings", output_uri)
        storage.delete(work_uri)
        progress.update("mine", 1, 1, "already finished, nothing to do")
        return finished

    ensure_ray()
    storage.delete(storage.join_uri(output_uri, "manifest.json"))
    storage.delete_unfinished(output_uri)
    num_computed = compute_features(plan, config.workers, inputs, output_uri, progress)
    logger.info("%d of %d shards embedded, the others were there", num_computed, len(inputs))
    features = [feature_uri(plan, shard, output_uri) for shard in inputs]
    samples = load_samples(inputs, features, config.captions.style_words)
    outcomes = apply_filters(samples, config)
    drop_copies(samples, config.dedup)
    _require_images(samples, input_uri)
    ledger = Ledger.load(output_uri, config.split)
    with tempfile.TemporaryDirectory(prefix="i2l-mine-") as scratch:
        mined = _mine(samples, config, ledger, Path(scratch), work_uri, progress)
        findings = Findings(config, samples, outcomes, mined, input_hash)
        return write_output(
            findings,
            ledger,
            output_uri,
            work_uri,
            progress,
            before_end=lambda: write_run(
                output_uri,
                config=config,
                input_uri=str(input_uri),
                num_computed=num_computed,
                started=started,
            ),
        )


def _mine(
    samples: Samples,
    config: MiningConfig,
    ledger: Ledger,
    scratch: Path,
    work_uri: str,
    progress: Progress,
) -> MinedPairs:
    """From features to selected pairs with their splits; nothing but partitions is written."""
    rows = np.flatnonzero(samples.is_kept())
    style, content = samples.vectors(rows, scratch)
    cache_uri = storage.join_uri(work_uri, "neighbours")
    neighbours = search_neighbours(style, config, scratch, cache_uri, progress)
    stays = drop_near_duplicates(samples, rows, neighbours, content, config.dedup)
    if not stays.all():
        rows, content = rows[stays], _copied(content, stays, scratch / "content-left.bin")
        neighbours = neighbours.within(stays, scratch)
    edges = candidate_edges(
        neighbours,
        local_scale(neighbours, config.search.csls_neighbours),
        _min_similarity(config),
    )
    progress.update("styles", 0, 1, f"{len(edges):,} links")
    cut = choose_cut(edges, len(rows), config.cut, config.seed)
    _require_trust(cut, len(edges), config)
    styles = find_styles(edges, cut, len(rows), neighbours.index.shape[1], config.cut)
    sha, source = samples.sha[rows], samples.source[rows]
    styles, names = settle_styles(styles, sha, ledger)
    progress.update("styles", 1, 1, f"{len(names):,} styles")
    selection = select_pairs(
        styles,
        samples.head[rows],
        source,
        content,
        config.selection,
        config.seed,
        config.workers,
    )
    paired = np.unique([pair.style for pair in selection.pairs]).tolist()
    splits = assign_splits(
        {names[number]: styles.members[number] for number in paired},
        sha,
        source,
        ledger,
        config.split,
    )
    selection = selection.only({n for n in paired if names[n] in splits}, "split_conflict")
    return MinedPairs(rows, content, edges, cut, styles, selection, names, splits)


def _copied(
    vectors: NDArray[np.float16], stays: NDArray[np.bool_], path: Path
) -> NDArray[np.float16]:
    """The rows of a mapped file that stay, as another one."""
    rows = np.flatnonzero(stays)
    shape = (len(rows), vectors.shape[1])
    copy: NDArray[np.float16] = np.memmap(path, np.float16, "w+", shape=shape)
    for start in range(0, len(rows), 65_536):
        part = slice(start, start + 65_536)
        copy[part] = vectors[rows[part]]
    return copy


def _min_similarity(config: MiningConfig) -> float:
    if config.cut.min_style_similarity is not None:
        return config.cut.min_style_similarity
    return encoder_entry(config.style_encoder, "style").min_similarity


def _require_apart(input_uri: str, shards: Sequence[str], output_uri: str) -> None:
    """Raise if the output would be read as input, or pairs be written among the input."""
    if storage.is_inside(output_uri, storage.absolute_uri(input_uri)):
        raise InputError("output", output_uri, "lies inside the input", "choose another folder")
    pairs_uri = storage.join_uri(output_uri, "shards")
    for shard in shards:
        if storage.is_inside(shard, pairs_uri):
            problem = f"holds input shards under shards/ ({shard}), where the pairs go"
            raise InputError("output", output_uri, problem, "choose another folder")


def _hash_inputs(uris: Sequence[str], root: str, progress: Progress) -> list[InputShard]:
    found: list[InputShard] = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = pool.map(lambda uri: (file_hash(uri), storage.file_size(uri)), uris)
        for uri, (sha256, size) in zip(uris, hashes, strict=True):
            name = uri.removeprefix(root).lstrip("/")
            found.append(InputShard(uri, name, sha256, size))
            progress.update("hash", len(found), len(uris))
    return found


def _require_images(samples: Samples, input_uri: str) -> None:
    """Raise if there is nothing to pair, saying what became of the input."""
    if not len(samples):
        raise InputError("input", input_uri, "holds no samples", "give shards with images")
    if samples.is_kept().sum() < 2:
        drops = ", ".join(f"{reason} {n}" for reason, n in samples.drop_counts().items())
        fix = "give shards with images and captions, or relax mining.ingest and mining.filters"
        raise InputError("input", input_uri, f"holds no two usable images ({drops})", fix)


def _require_trust(cut: Cut, num_candidates: int, config: MiningConfig) -> None:
    """Raise if nothing in the input looks like a style that repeats."""
    if not cut.trusted:
        raise InputError(
            "input",
            f"{num_candidates} candidate links, {cut.precision:.0%} of pairs estimated to be right",
            f"shows no styles that repeat ({config.cut.min_precision:.0%} needed)",
            "give at least three images of each style, or lower mining.cut.min_precision",
        )
