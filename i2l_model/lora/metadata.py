"""What a LoRA file says of itself in its header."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

_PREFIX = "i2l."


@dataclass(frozen=True)
class LoraMetadata:
    """Where a predicted LoRA comes from.

    Attributes:
        backbone: Name of the model it is for.
        rank: Its largest rank.
        predictor: Version of the predictor: a registry URI or a name, and the weights' sha256.
        references: File names of the references.
        references_sha256: Hashes of their files.
        weights: How much each reference counts; None when all count alike.
        strength: Factor that is inside of it.
    """

    backbone: str
    rank: int
    predictor: str
    references: tuple[str, ...] = ()
    references_sha256: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    strength: float = 1.0

    def header(self) -> dict[str, str]:
        """Return the entries of the safetensors header."""
        return {
            f"{_PREFIX}backbone": self.backbone,
            f"{_PREFIX}rank": str(self.rank),
            f"{_PREFIX}predictor": self.predictor,
            f"{_PREFIX}references": json.dumps(self.references),
            f"{_PREFIX}references_sha256": json.dumps(self.references_sha256),
            f"{_PREFIX}weights": json.dumps(self.weights),
            f"{_PREFIX}strength": str(self.strength),
        }


def backbone_of(header: Mapping[str, str]) -> str | None:
    """Return the model that a LoRA is for, or None where its file does not tell."""
    return header.get(f"{_PREFIX}backbone")
