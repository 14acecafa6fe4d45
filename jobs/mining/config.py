"""Settings of the mining job. Each value stands once, here, with unit and effect."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestConfig(_Settings):
    """What is decoded. A change here decodes and embeds again."""

    min_side: Count = Field(32, description="Shortest side in pixels; smaller images are dropped.")
    max_aspect: float = Field(3.0, ge=1.0, description="Longest side over shortest side.")
    max_pixels: Count = Field(50_000_000, description="Width × height, checked in the header.")
    max_member_mib: Count = Field(64, description="Largest file inside a shard, in MiB.")
    caption_required: bool = Field(True, description="Drop images without a caption.")


class FilterConfig(_Settings):
    """Thresholds on columns that the input's JSON brings along. None switches a filter off."""

    respect_opt_out: bool = Field(True, description="Drop images whose owner opted out.")
    licences: tuple[str, ...] | None = Field(None, description="Licences to keep, exact names.")
    min_aesthetic: float | None = Field(None, description="Least aesthetic score, 0 to 10.")
    max_watermark: Fraction | None = Field(None, description="Largest watermark probability.")
    max_nsfw: Fraction | None = Field(None, description="Largest probability of unsafe content.")


class CaptionConfig(_Settings):
    """How captions are read."""

    style_words: tuple[str, ...] = Field((), description="Style words of the corpus, stripped too.")


class WorkerConfig(_Settings):
    """Ray workers, batches and the CPUs that each of them reserves."""

    num_ingest: Count = Field(2, description="Shards that are decoded at the same time.")
    num_style: Count = Field(2, description="Actors of the style encoder.")
    num_content: Count = Field(1, description="Actors of the content encoder.")
    num_search: Count = Field(1, description="Actors of the neighbour search.")
    batch_size: Count = Field(128, description="Images a batch in the encoders.")
    num_cpus: float = Field(0.25, gt=0, description="Logical CPUs a worker reserves.")


class DedupConfig(_Settings):
    """What counts as the same picture twice."""

    max_hamming: int = Field(4, ge=0, le=8, description="Differing bits of the perceptual hash.")
    max_thumbnail_difference: float = Field(
        6.0, ge=0, description="Mean difference of 8×8 thumbnails in grey levels (0 to 255)."
    )
    style_similarity: Fraction = Field(0.95, description="Near-duplicates exceed both cosines.")
    content_similarity: Fraction = Field(0.95, description="Near-duplicates exceed both cosines.")


class SearchConfig(_Settings):
    """Nearest neighbours in style."""

    num_neighbours: Count = Field(128, description="Neighbours kept for each image.")
    csls_neighbours: Count = Field(10, description="Neighbours that set an image's local scale.")
    partition_size: Count = Field(10_000, description="Images a partition; up to twice this: one.")


class CutConfig(_Settings):
    """Where similarity becomes "same style", and what holds a style together."""

    min_style_similarity: float | None = Field(
        None, description="Least style cosine of a pair; None takes the encoder's calibration."
    )
    min_precision: Fraction = Field(
        0.85,
        description="Estimated share of right links, before support and density sort them, below "
        "which no cut is trusted.",
    )
    tolerance: Fraction = Field(
        0.02, description="Loss of score, of 1, that is accepted for a stricter cut."
    )
    min_support: Fraction = Field(
        0.6, description="Least overlap (Jaccard) of the neighbourhoods of a pair."
    )
    min_density: Fraction = Field(
        0.6, description="Least share of linked pairs in a style; looser ones are cut again."
    )
    min_style_size: int = Field(3, ge=2, description="Images a style needs.")


class SelectionConfig(_Settings):
    """Which pairs are made."""

    max_refs: int = Field(4, ge=1, le=8, description="References of a pair.")
    max_uses_per_image: Count = Field(8, description="Pairs an image may appear in.")
    max_pairs_per_style: Count = Field(64, description="Pairs of one style.")
    content_quantile: Fraction = Field(
        0.75,
        description="Pairs stay below this quantile of the content cosine of random images.",
    )


class SplitConfig(_Settings):
    """Shares of styles, not of pairs: no style is in two splits."""

    val: Fraction = Field(0.1, description="Share of styles for validation.")
    test: Fraction = Field(0.1, description="Share of styles for evaluation.")
    min_val_styles: int = Field(1, ge=0, description="Least number of validation styles.")
    min_test_styles: int = Field(1, ge=0, description="Least number of test styles.")
    seed: int = Field(0, description="Seed of the assignment.")

    @model_validator(mode="after")
    def _leave_training_styles(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1; lower one of them")
        return self


class MiningConfig(_Settings):
    """Everything that decides which pairs a set of shards gives."""

    style_encoder: str = Field("offline-style", description="Registered style encoder.")
    content_encoder: str = Field("offline-content", description="Registered content encoder.")
    ingest: IngestConfig = IngestConfig()
    filters: FilterConfig = FilterConfig()
    captions: CaptionConfig = CaptionConfig()
    dedup: DedupConfig = DedupConfig()
    search: SearchConfig = SearchConfig()
    cut: CutConfig = CutConfig()
    selection: SelectionConfig = SelectionConfig()
    split: SplitConfig = SplitConfig()
    workers: WorkerConfig = WorkerConfig()
    jpeg_quality: int = Field(95, ge=1, le=100, description="Quality of images in pair shards.")
    shard_mib: Count = Field(128, description="Size of a pair shard in MiB.")
    seed: int = Field(0, description="Seed of sampling: random pairs, k-means, report examples.")
