"""A training's input made in this process, without Ray."""

from collections.abc import Sequence
from pathlib import Path

from jobs import shards
from jobs.training.caching import EncodeChunks, EncodingPlan
from jobs.training.config import TrainingConfig
from jobs.training.indexing import has_split, index_shard, read_index, split_uri, store_index
from jobs.training.inputs import TrainingInputs
from jobs.training.pair_index import PairIndex
from jobs.training.row_files import RowFiles


def make_index(pairs: Path, split: str, file: Path, dropped: list[str] | None = None) -> PairIndex:
    records = [
        record
        for number, uri in enumerate(shards.list_shards(split_uri(str(pairs), split)))
        for record in index_shard(uri, number, [] if dropped is None else dropped)
    ]
    store_index(records, str(file))
    return read_index(str(pairs), split, str(file))


def make_inputs(pairs: Path, folder: Path) -> TrainingInputs:
    """Indexes of all splits that there are, in a folder."""
    files = {
        split: folder / f"{split}.parquet"
        for split in ("train", "val")
        if has_split(str(pairs), split)
    }
    for split, file in files.items():
        make_index(pairs, split, file)
    uris = {split: str(file) for split, file in files.items()}
    return TrainingInputs(pairs_uri=str(pairs), index_uris=uris)


def encode_inputs(
    inputs: TrainingInputs,
    config: TrainingConfig,
    folder: Path,
    kinds: Sequence[str],
    device: str = "cpu",
) -> TrainingInputs:
    """The input with its train split encoded."""
    plan = EncodingPlan(config=config, inputs=inputs, init_uri=None, device=device)
    stage = EncodeChunks(plan)
    for kind in kinds:
        num_rows = stage.num_rows(kind)
        sizes = []
        for chunk in range(-(-num_rows // plan.rows_per_chunk)):
            item = {"kind": [kind], "chunk": [chunk], "folder": [str(folder / kind)]}
            (row,) = zip(*stage(item).values(), strict=True)
            sizes.append(row[2])
        RowFiles(num_rows, plan.rows_per_chunk, row[3], sizes).write(str(folder / kind))
    cached = {kind: str(folder / kind) for kind in kinds}
    return inputs.model_copy(update={"cached": cached})
