"""Where a training's input lies: the index of each split, and what the cache stage has encoded."""

from pydantic import BaseModel, ConfigDict, Field

from jobs.training.buckets import assign_buckets
from jobs.training.config import TrainingConfig
from jobs.training.indexing import read_index
from jobs.training.loading import BatchLoader
from jobs.training.row_files import RowReader


class TrainingInputs(BaseModel):
    """Places of a training's input; all URIs are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs_uri: str
    index_uris: dict[str, str] = Field(description="Parquet file of each split.")
    cached: dict[str, str] = Field(
        default={}, description="Folder of each kind that is encoded, of the train split."
    )


def open_loader(
    inputs: TrainingInputs,
    config: TrainingConfig,
    split: str,
    *,
    ref_size: int,
    target_size: int,
) -> BatchLoader:
    """Read the index of a split and open what is cached of it.

    Args:
        inputs: Where they lie.
        config: Sizes of the targets, and how long to wait for storage.
        split: "train" or "val".
        ref_size: Side of the references in pixels.
        target_size: Side of the targets in pixels where there are no aspect buckets.
    """
    index = read_index(inputs.pairs_uri, split, inputs.index_uris[split])
    sizes = config.aspect_buckets or ((target_size, target_size),)
    buckets = assign_buckets(index.targets, sizes)
    cached = {}
    if split == "train":
        cached = {kind: RowReader(uri) for kind, uri in inputs.cached.items()}
    own_sizes = {"ref_size": ref_size, "target_size": target_size}
    return BatchLoader(index, own_sizes, buckets, cached, config.storage_patience_s)
