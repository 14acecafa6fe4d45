"""WebDataset shards: a salvaging reader for untrusted tars and a deterministic writer.

Members stay bytes: only images and texts are read, nothing is decoded by extension and nothing is
ever unpickled.
"""

from jobs.shards.listing import has_shards, input_root, list_shards, remove_shards
from jobs.shards.reader import MAX_MEMBER_BYTES, MAX_TEXT_BYTES, ShardSample, read_shard
from jobs.shards.tar import BLOCK
from jobs.shards.writer import ShardInfo, ShardWriter

__all__ = [
    "BLOCK",
    "MAX_MEMBER_BYTES",
    "MAX_TEXT_BYTES",
    "ShardInfo",
    "ShardSample",
    "ShardWriter",
    "has_shards",
    "input_root",
    "list_shards",
    "read_shard",
    "remove_shards",
]
