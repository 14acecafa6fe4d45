"""The stages before a training: the index of the pairs, and what frozen encoders make of them.

Both are Ray Data jobs whose results are named by a hash of all they depend on. A later run with
the same input finds them; with other input it makes new ones. A run that was stopped goes on with
the chunks that are missing.
"""

# U distinct images or prompts, T tokens, E features

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from i2l_model.backbones.loading import backbone_class
from i2l_model.errors import InputError
from jobs import provenance, storage
from jobs.progress import Progress
from jobs.training.config import TrainingConfig
from jobs.training.encoding import encode_pixels
from jobs.training.indexing import has_split, read_index, shards_hash, write_index
from jobs.training.inputs import TrainingInputs, open_loader
from jobs.training.job import model_fingerprint
from jobs.training.loading import LATENTS, PROMPTS, TOKENS
from jobs.training.models import build_predictor, load_frozen_encoders
from jobs.training.pair_index import PairIndex
from jobs.training.row_files import (
    RowFiles,
    chunk_rows,
    chunk_size,
    chunk_uri,
    complete_rows,
    row_name,
    write_chunk,
)

logger = logging.getLogger(__name__)

CACHE_FOLDER = "cache"
_BATCHES_PER_CHUNK = 4
_CHUNKS_PER_ACTOR = 4  # at least: an actor loads all models first
_NAME_LENGTH = 16
_SCHEMA_VERSION = 1

Rows = dict[str, torch.Tensor]


class EncodingPlan(BaseModel):
    """What the actors of the cache stage need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainingConfig
    inputs: TrainingInputs
    init_uri: str | None
    device: str

    @property
    def rows_per_chunk(self) -> int:
        """Rows of one file."""
        return _BATCHES_PER_CHUNK * self.config.encode_batch_size


def prepare_inputs(
    config: TrainingConfig,
    pairs_uri: str,
    output_uri: str,
    init_uri: str | None,
    device: str,
    progress: Progress,
) -> TrainingInputs:
    """Make the index of each split and, if wanted, encode the train split.

    Args:
        config: All settings.
        pairs_uri: Output folder of mining.
        output_uri: Output folder of the training.
        init_uri: Predictor that the training starts from.
        device: "cpu" or "cuda".
        progress: Receives the stages "index pairs" and "encode ...".

    Raises:
        InputError: If pairs or models cannot be used.
    """
    root = storage.absolute_uri(config.cache_uri or storage.join_uri(output_uri, CACHE_FOLDER))
    index_uris = {}
    splits = [split for split in ("train", "val") if has_split(pairs_uri, split)]
    for number, split in enumerate(splits):
        progress.update("index pairs", number, len(splits))
        name = f"{split}-{shards_hash(pairs_uri, split)[:_NAME_LENGTH]}.parquet"
        index_uris[split] = storage.join_uri(root, name)
        if not storage.exists(index_uris[split]):
            write_index(pairs_uri, split, index_uris[split])
    progress.update("index pairs", len(splits), len(splits))
    inputs = TrainingInputs(pairs_uri=pairs_uri, index_uris=index_uris)
    if not config.cache:
        return inputs
    hashes = _cache_hashes(config, index_uris["train"], init_uri)
    cached = {
        kind: storage.join_uri(root, f"{kind}-{value[:_NAME_LENGTH]}")
        for kind, value in hashes.items()
    }
    plan = EncodingPlan(config=config, inputs=inputs, init_uri=init_uri, device=device)
    _encode(plan, {k: uri for k, uri in cached.items() if complete_rows(uri) is None}, progress)
    return inputs.model_copy(update={"cached": cached})


def _cache_hashes(config: TrainingConfig, index_uri: str, init_uri: str | None) -> dict[str, str]:
    """Hash of each kind that may be cached, over all that its values depend on."""
    shared = [_SCHEMA_VERSION, index_uri.rpartition("/")[2], config.precision]
    shared += [config.encode_batch_size]
    depends: dict[str, list[Any]] = {}
    if backbone_class(config.backbone).has_frozen_encoders:
        backbone = model_fingerprint(config.backbone)
        depends[LATENTS] = [backbone, config.aspect_buckets]
        depends[PROMPTS] = [backbone]
    towers = [tower for tower in (config.predictor.encoder, config.predictor.dinov3) if tower]
    if not any(tower.trainable for tower in towers):
        sources = [tower.path_or_id for tower in towers]
        depends[TOKENS] = [
            config.predictor.version,
            [tower.model_dump(mode="json") for tower in towers],
            [None if source is None else model_fingerprint(source) for source in sources],
        ]
        if None in sources:  # new towers come from the seed, or from where the training starts
            start = None if init_uri is None else provenance.predictor_hash(init_uri)
            depends[TOKENS] += [config.seed, start]
    return {kind: provenance.json_hash(shared + what) for kind, what in depends.items()}


def _encode(plan: EncodingPlan, folders: Mapping[str, str], progress: Progress) -> None:
    """Encode the kinds that are not there yet, in one Ray Data job."""
    import ray.data

    if not folders:
        return
    index = read_index(plan.inputs.pairs_uri, "train", plan.inputs.index_uris["train"])
    chunks = {kind: -(-_num_rows(index, kind) // plan.rows_per_chunk) for kind in folders}
    items = [
        {"kind": kind, "chunk": chunk, "folder": folders[kind]}
        for kind in folders
        for chunk in range(chunks[kind])
    ]
    actors = min(plan.config.num_workers, -(-len(items) // _CHUNKS_PER_ACTOR))
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        EncodeChunks,
        fn_constructor_args=(plan,),
        batch_size=1,
        num_cpus=plan.config.cpus_per_worker,
        num_gpus=1 if plan.device == "cuda" else None,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
    )
    sizes: dict[str, dict[int, int]] = {kind: {} for kind in folders}
    parts = dict.fromkeys(folders, 1)
    for row in dataset.iter_rows():
        kind = row["kind"]
        sizes[kind][row["chunk"]] = row["size"]
        parts[kind] = row["num_parts"]
        progress.update(f"encode {kind}", len(sizes[kind]), chunks[kind])
    for kind, folder in folders.items():
        found = [sizes[kind][chunk] for chunk in range(chunks[kind])]
        rows = _num_rows(index, kind)
        RowFiles(rows, plan.rows_per_chunk, parts[kind], found).write(folder)


def _num_rows(index: PairIndex, kind: str) -> int:
    rows: Mapping[str, Sequence[Any] | Any] = {
        LATENTS: index.targets,
        PROMPTS: index.prompts,
        TOKENS: index.refs,
    }
    return len(rows[kind])


class EncodeChunks:
    """Ray Data stage: encodes and writes chunks of rows; the models are loaded once an actor.

    Args:
        plan: Settings and places.
    """

    def __init__(self, plan: EncodingPlan) -> None:
        config = plan.config
        torch.set_num_threads(config.threads_per_worker)
        self._plan = plan
        self._backbone = load_frozen_encoders(config, plan.device)
        predictor = build_predictor(config, self._backbone, plan.init_uri)
        self._predictor = predictor.to(plan.device, self._backbone.dtype).eval()
        self._loader = open_loader(
            plan.inputs,
            config,
            "train",
            ref_size=predictor.image_size,
            target_size=self._backbone.image_size,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Encode one chunk, unless an earlier run has."""
        kind, chunk, folder = batch["kind"][0], int(batch["chunk"][0]), batch["folder"][0]
        members = chunk_rows(chunk, self._plan.rows_per_chunk, self.num_rows(kind))
        num_parts = len(self._predictor.towers) if kind == TOKENS else 1
        names = [row_name(row, part) for row in members for part in range(num_parts)]
        size = _kept_size(chunk_uri(folder, chunk), names)
        if size is None:
            size = write_chunk(folder, chunk, self._rows(kind, members))
        return {"kind": [kind], "chunk": [chunk], "size": [size], "num_parts": [num_parts]}

    def num_rows(self, kind: str) -> int:
        """Rows of a kind in all."""
        return _num_rows(self._loader.index, kind)

    @torch.no_grad()
    def _rows(self, kind: str, members: range) -> Rows:
        encode: Callable[[range], Rows] = {
            LATENTS: self._latents,
            PROMPTS: self._prompts,
            TOKENS: self._tokens,
        }[kind]
        rows: Rows = {}
        size = self._plan.config.encode_batch_size
        for start in range(0, len(members), size):
            rows |= encode(members[start : start + size])
        return rows

    def _latents(self, rows: range) -> Rows:
        found: Rows = {}
        for members in self._loader.by_bucket(list(rows)):
            latents = encode_pixels(self._backbone, self._loader.target_images(members))
            found |= {row_name(row): part for row, part in zip(members, latents, strict=True)}
        return found

    def _prompts(self, rows: range) -> Rows:
        prompts = self._loader.index.prompts[rows.start : rows.stop]
        embeds = self._backbone.encode_prompts(prompts)
        return {row_name(row): embed for row, embed in zip(rows, embeds, strict=True)}

    def _tokens(self, rows: range) -> Rows:
        images = self._loader.ref_images(rows).to(self._plan.device, self._backbone.dtype)
        towers = self._predictor.encode_references(images[None] / 127.5 - 1)
        return {
            row_name(row, part): token
            for part, tokens in enumerate(towers)
            for row, token in zip(rows, tokens[0], strict=True)
        }


def _kept_size(uri: str, names: Sequence[str]) -> int | None:
    """Bytes of the chunk that an earlier run has written; None if there is none that is whole."""
    if not storage.exists(uri):
        return None
    try:
        return chunk_size(uri, names)
    except InputError as error:
        logger.warning("%s %s and is encoded again", uri, error.problem)
        return None
