"""One training example."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """One training example: image numbers of the target and of its references.

    Attributes:
        style: Number of the style.
        target: The image to draw.
        refs: One to ``max_refs`` images that show the style.
        style_similarity: Mean style cosine of the references to the target.
        content_similarity: Largest content cosine of a reference to the target.
    """

    style: int
    target: int
    refs: tuple[int, ...]
    style_similarity: float
    content_similarity: float
