"""The columns of a feature file: one Parquet file an input shard, one row a sample, in order."""

import pyarrow as pa

FEATURE_SCHEMA_VERSION = 2

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),  # in the shard, dropped samples counted
        ("key", pa.string()),
        ("reason", pa.string()),  # why ingest dropped it, "" if it did not
        ("caption", pa.string()),
        ("meta", pa.string()),  # JSON object, keys sorted
        ("source", pa.string()),  # artist, author, creator, source or domain; "" unknown
        ("licence", pa.string()),  # "" unknown
        ("opt_out", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("phash", pa.uint64()),
        ("thumbnail", pa.binary()),  # 8 × 8 × 3 uint8; b"" for dropped rows, as the vectors
        ("aesthetic", pa.float32()),  # 0 to 10; the scores are null where not known
        ("watermark", pa.float32()),  # probability
        ("nsfw", pa.float32()),  # probability
        ("style", pa.binary()),  # fp16 vector
        ("content", pa.binary()),  # fp16 vector
    ]
)

IGNORED_MEMBERS = b"ignored_members"
"""Key of the file's metadata: JSON object, suffix → members of the shard that were passed over."""
