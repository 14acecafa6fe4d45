"""What the reasons mean for which images are dropped; each image has one."""

DROP_TEXTS = {
    "corrupt_image": "cannot be decoded",
    "animated": "has several frames",
    "too_many_pixels": "over the pixel limit",
    "too_small": "shorter side under the limit",
    "extreme_aspect": "too long and narrow",
    "no_image": "no image file in the sample",
    "no_caption": "no caption",
    "download_failed": "img2dataset says that its download failed",
    "truncated_shard": "the shard ends inside the sample, or without its end mark",
    "corrupt_header": "damaged tar header",
    "compressed_shard": "the shard is compressed; shards must be plain tars",
    "empty_shard": "the shard holds nothing",
    "member_too_large": "a file over the size limit",
    "sample_too_large": "too many or too large files for one sample",
    "unsafe_name": "a name that leaves its folder",
    "duplicate_key": "the same key as the sample before",
    "non_adjacent_key": "the sample's files are scattered over the shard, or its key came before",
    "opt_out": "its owner opted out",
    "licence_not_allowed": "licence not on the list",
    "low_aesthetic": "aesthetic score under the limit or unknown",
    "watermark": "watermark probability over the limit or unknown",
    "nsfw": "probability of unsafe content over the limit or unknown",
    "duplicate_file": "the same file as another sample",
    "duplicate_picture": "the same picture as another sample",
    "near_duplicate": "nearly the same in style and content as another sample",
}

SHARD_DAMAGE = (
    "truncated_shard",
    "corrupt_header",
    "compressed_shard",
    "empty_shard",
    "non_adjacent_key",
)
"""Reasons that speak of the shard and not of the picture."""

DUPLICATES = ("duplicate_file", "duplicate_picture", "near_duplicate")
"""Reasons of deduplication, in its order."""

UNDECODABLE = {
    "animated",
    "compressed_shard",
    "corrupt_header",
    "corrupt_image",
    "download_failed",
    "duplicate_key",
    "empty_shard",
    "member_too_large",
    "no_caption",
    "no_image",
    "non_adjacent_key",
    "sample_too_large",
    "too_many_pixels",
    "truncated_shard",
    "unsafe_name",
}
"""Reasons whose images the report names instead of showing them."""

STEP_TEXTS = {
    "ingest": "read and decoded",
    "opt_out": "opt-out",
    "licence": "licence",
    "aesthetic": "aesthetic score",
    "watermark": "watermark",
    "nsfw": "unsafe content",
    "duplicate_file": "equal files",
    "duplicate_picture": "equal pictures",
    "near_duplicate": "near-duplicates",
    "style": "in a style that repeats",
    "pair": "in a pair",
}
"""Names of the steps that an image passes on its way into a pair."""
