"""Settings of the mining job. Each value stands once, here, with unit and effect."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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
    """Thresholds on columns of the feature files. None switches a filter off.

    A change here decodes and embeds nothing again.
    """

    respect_opt_out: bool = Field(True, description="Drop images whose owner opted out.")
    licences: tuple[str, ...] | None = Field(None, description="Licences to keep, exact names.")
    min_aesthetic: float | None = Field(None, description="Least aesthetic score, 0 to 10.")
    max_watermark: Fraction | None = Field(None, description="Largest watermark probability.")
    max_nsfw: Fraction | None = Field(None, description="Largest probability of unsafe content.")


class ModelWorkers(_Settings):
    """Where and in which portions a model runs."""

    device: Literal["cpu", "cuda"] = Field("cpu", description='"cuda": one GPU an actor.')
    num_actors: Count = Field(1, description="Actors of the model's fixed pool.")
    memory_mib: Count = Field(2048, description="Memory that Ray reserves an actor.")


class ModelConfig(_Settings):
    """How a model computes."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision; on a GPU bfloat16 takes half the time and memory."
    )
    workers: ModelWorkers = ModelWorkers()


class EncoderConfig(ModelConfig):
    """An encoder: a registered name, for models with the place of their weights."""

    name: str = Field(description="Name in the registry.")
    path: str | None = Field(None, description="Folder or hub id of the weights; models only.")
    text_path: str | None = Field(
        None, description="Folder or hub id of a CLIP text model that reads captions as content."
    )
    text_weight: Fraction = Field(
        0.3, description="Share of the caption's cosine in the content cosine, with text_path."
    )


class ScorerConfig(ModelConfig):
    """Where a score comes from."""

    source: str = Field(
        "metadata",
        description='"metadata": the columns of the input\'s JSON; "skip": no scores, and the '
        "report says so; else folder or hub id of a model.",
    )
    head: str | None = Field(
        None, description="Safetensors file of an aesthetic head on CLIP's image embedding."
    )
    positive_label: str | None = Field(
        None, description="The label whose probability is the score; None is the score's name."
    )

    @property
    def is_model(self) -> bool:
        """Whether a model computes the score."""
        return self.source not in ("metadata", "skip")


def _named(field: str) -> BeforeValidator:
    """Take a plain text as the object's ``field``."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


Encoder = Annotated[EncoderConfig, _named("name")]
Scorer = Annotated[ScorerConfig, _named("source")]


class ScorersConfig(_Settings):
    """Sources of the scores: "metadata", "skip", or a model. Models score again when changed."""

    aesthetic: Scorer = ScorerConfig()
    watermark: Scorer = ScorerConfig()
    nsfw: Scorer = ScorerConfig()


class CaptionConfig(_Settings):
    """How captions are read."""

    style_words: tuple[str, ...] = Field((), description="Style words of the corpus, stripped too.")


class WorkerConfig(_Settings):
    """Ray workers, batches and the CPUs that each of them reserves."""

    num_ingest: Count = Field(2, description="Actors that read, decode and describe images.")
    num_search: Count = Field(2, description="Partitions searched at a time; each is in memory.")
    num_cpus: float = Field(0.25, gt=0, description="Logical CPUs a worker reserves.")
    ingest_memory_mib: Count = Field(1024, description="Memory that Ray reserves an ingest actor.")


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
        description="Estimated share of right pairs, below which no cut is trusted.",
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
    max_pairs: int | None = Field(
        None, ge=1, description="Pairs in all; styles get shares by the root of their size."
    )
    max_source_share: Fraction = Field(
        0.05,
        description="Share of the pairs that may show pictures of one source; of fewer than 20 "
        "sources, an equal share each.",
    )
    max_style_similarity: Fraction = Field(
        0.98, description="Pairs stay below this style cosine: nearer ones are copies."
    )
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
    by_source: bool = Field(
        True, description="Keep styles that share an artist or another source in one split."
    )
    seed: int = Field(0, description="Seed of the assignment.")

    @model_validator(mode="after")
    def _leave_training_styles(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1; lower one of them")
        return self


class MiningConfig(_Settings):
    """Everything that decides which pairs a set of shards gives."""

    style_encoder: Encoder = Field(
        EncoderConfig(name="offline-style"), description="Style encoder: its name, or an object."
    )
    content_encoder: Encoder = Field(
        EncoderConfig(name="offline-content"), description="Content encoder, as style_encoder."
    )
    ingest: IngestConfig = IngestConfig()
    scorers: ScorersConfig = ScorersConfig()
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

    @model_validator(mode="after")
    def _require_scores(self) -> Self:
        limits, scorers = self.filters, self.scorers
        for limit, value, score, scorer in (
            ("min_aesthetic", limits.min_aesthetic, "aesthetic", scorers.aesthetic),
            ("max_watermark", limits.max_watermark, "watermark", scorers.watermark),
            ("max_nsfw", limits.max_nsfw, "nsfw", scorers.nsfw),
        ):
            if value is not None and scorer.source == "skip":
                raise ValueError(
                    f"filters.{limit} ({value}) needs scores, but scorers.{score} is skip; "
                    f"name a model there, or set filters.{limit} to null"
                )
        return self
