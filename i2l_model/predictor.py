"""The predictor: reference images to the weights of a style LoRA, in one forward pass.

What both architectures share: encoders, checks, files. Version 2 is `query_predictor`, the baseline
version 1 is `pooled_predictor`.
"""

# N LoRAs, K references, H W pixels, T tokens of an image, E encoder features, G layers of a group

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2l_model.dinov3 import Dinov3Encoder
from i2l_model.encoder import ReferenceEncoder
from i2l_model.errors import InputError
from i2l_model.heads import CompressedHeads
from i2l_model.lora.factors import LoraFactors
from i2l_model.predictor_config import PredictorConfig, read_config
from i2l_model.references import reference_shares
from i2l_model.tower import VisionTower
from i2l_model.weights import read_weights, write_bytes, write_weights

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_MID_GRAY = 128 / 127.5 - 1  # pixel value 128

__all__ = ["LoraPredictor", "PredictorConfig"]


class LoraPredictor(nn.Module, ABC):
    """Predicts LoRAs from one or more references.

    The order of the references has no effect on the update, nor has repeating all of them. An
    untrained predictor changes nothing.

    Args:
        config: Its sizes.
        pooled: Whether the encoders return one token an image.
    """

    heads: CompressedHeads

    def __init__(self, config: PredictorConfig, *, pooled: bool) -> None:
        super().__init__()
        self.config = config
        self.encoder = ReferenceEncoder(config.encoder, pooled=pooled)
        if config.dinov3 is not None:
            size = self.encoder.image_size
            self.dinov3 = Dinov3Encoder(config.dinov3, image_size=size, pooled=pooled)

    @classmethod
    def build(cls, config: PredictorConfig) -> "LoraPredictor":
        """Build an untrained predictor; its encoders are pretrained where the config names them."""
        from i2l_model.pooled_predictor import PooledPredictor  # both derive from this class
        from i2l_model.query_predictor import QueryPredictor

        return PooledPredictor(config) if config.version == 1 else QueryPredictor(config)

    @property
    def towers(self) -> dict[str, ReferenceEncoder | Dinov3Encoder]:
        """The image encoders by the names of their settings."""
        parts = {"encoder": self.encoder, "dinov3": getattr(self, "dinov3", None)}
        return {name: tower for name, tower in parts.items() if tower is not None}

    @property
    def image_size(self) -> int:
        """Side of the reference images in pixels."""
        return self.encoder.image_size

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the predictor's own weights."""
        return next(self.heads.parameters()).dtype

    def forward(
        self,
        ref_images: torch.Tensor | None,
        ref_mask: torch.Tensor | None = None,
        ref_weights: torch.Tensor | None = None,
        *,
        ref_tokens: Sequence[torch.Tensor] | None = None,
    ) -> LoraFactors:
        """Predict one LoRA for each row of references.

        Args:
            ref_images: (N, K, 3, H, W) in [-1, 1] with H = W = `image_size`; None with tokens.
            ref_mask: (N, K) bool, False where a reference is absent; None means all are there.
            ref_weights: (N, K) how much each reference counts, relative to the others of its row;
                None weighs them equally, 0 drops one.
            ref_tokens: What `encode_references` returns of the images, e.g. cached.

        Returns:
            N LoRAs.

        Raises:
            InputError: If the shapes disagree, a row has no reference, there are more than
                ``max_refs``, or a present reference or a weight is not finite.
        """
        if (ref_images is None) == (ref_tokens is None):
            fix = "give either"
            raise InputError("ref_images", "and ref_tokens", "are both there, or neither is", fix)
        max_refs = self.config.max_refs
        if ref_tokens is not None:
            places = ref_tokens[0].unsqueeze(-1)  # (N, K) and three more axes, as images have
            shares = reference_shares(places, ref_mask, ref_weights, max_refs=max_refs)
            return self.predict_from_tokens(ref_tokens, shares)
        assert ref_images is not None
        shares = reference_shares(ref_images, ref_mask, ref_weights, max_refs=max_refs)
        return self.predict_from_tokens(self.encode_references(ref_images, shares > 0), shares)

    def encode_references(
        self, ref_images: torch.Tensor, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return each encoder's tokens (N, K, T, E); absent references are not read and give zeros.

        Args:
            ref_images: (N, K, 3, H, W) in [-1, 1].
            present: (N, K) bool, or None for all.

        Raises:
            InputError: If a present image is not finite or has another size.
        """
        N, K = ref_images.shape[:2]
        images = ref_images.flatten(0, 1)
        rows = None
        if present is not None and not bool(present.all()):
            rows = present.flatten().nonzero().squeeze(1)
            images = images[rows]
        if not torch.isfinite(images).all():
            raise InputError("ref_images", "NaN or infinity", "is no pixel value", "drop the image")
        outputs = []
        for tower in self.towers.values():
            tokens = tower(images.to(self.dtype))
            if rows is not None:
                full = tokens.new_zeros(N * K, *tokens.shape[1:])
                tokens = full.index_copy(0, rows, tokens)
            outputs.append(tokens.view(N, K, *tokens.shape[1:]))
        return tuple(outputs)

    def predict_from_tokens(
        self, tokens: Sequence[torch.Tensor], shares: torch.Tensor
    ) -> LoraFactors:
        """Predict LoRAs from the encoders' tokens, e.g. cached ones of frozen encoders.

        Args:
            tokens: (N, K, T, E) of each encoder, from `encode_references`.
            shares: (N, K) the references' shares of the attention, which sum to 1 in every row;
                0 masks a reference.
        """
        return self.heads.factors(self.decode(tuple(tokens), shares))

    @abstractmethod
    def decode(self, tokens: tuple[torch.Tensor, ...], shares: torch.Tensor) -> list[torch.Tensor]:
        """Return the LoRAs' rows (G, N, R, F), as `CompressedHeads.factors` reads them.

        All arithmetic behind the encoders, and only tensors: what `compile` compiles.
        """

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile `decode` in place; takes torch.compile's arguments.

        Encoders and the checks of the input, which read values, stay as they are.
        """
        self.decode = torch.compile(self.decode, *args, **kwargs)  # type: ignore[method-assign]

    @torch.no_grad()
    def predict_neutral(self, num_refs: int = 1) -> LoraFactors:
        """Return the LoRA (N = 1) of mid-gray references, for the "neutral_negative" guidance."""
        size, device = self.image_size, next(self.heads.parameters()).device
        images = torch.full((1, num_refs, 3, size, size), _MID_GRAY, device=device)
        return self.forward(images)

    def num_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        return {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in self.named_children()
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors.

        A frozen pretrained encoder is not stored again; a hash of its weights is, so that loading
        notices if the encoder has changed.
        """
        folder = Path(folder)
        external = self._external_towers()
        state = {name: t for name, t in self.state_dict().items() if _owner(name) not in external}
        metadata = {f"{name}_fingerprint": tower.fingerprint() for name, tower in external.items()}
        write_weights(state, folder / _WEIGHTS, {"format": "pt", **metadata})
        own = {  # weights in the file: drop the source
            name: tower.sizes() for name, tower in self.towers.items() if name not in external
        }
        config = self.config.model_copy(update=own)
        write_bytes((config.model_dump_json(indent=2) + "\n").encode(), folder / _CONFIG)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu"
    ) -> "LoraPredictor":
        """Load a predictor in eval mode from a folder that `save_pretrained` wrote.

        Raises:
            InputError: If a file is missing or damaged, a setting is invalid, a weight is missing,
                unknown, of the wrong shape or not finite, or an encoder's weights have changed.
        """
        folder = Path(folder)
        config = read_config(folder / _CONFIG)
        tensors, metadata = read_weights(folder / _WEIGHTS, field="predictor")
        predictor = cls.build(config)
        predictor._check_state(tensors, folder / _WEIGHTS)
        predictor.load_state_dict(tensors, strict=False)
        for name, tower in predictor._external_towers().items():
            if metadata.get(f"{name}_fingerprint") != tower.fingerprint():
                raise InputError(
                    f"{name}.path_or_id",
                    getattr(config, name).path_or_id,
                    "holds other weights than the predictor was trained with",
                    "restore the encoder or train the predictor again",
                )
        return predictor.to(device).eval()

    def _external_towers(self) -> dict[str, VisionTower]:
        return {
            name: tower
            for name, tower in self.towers.items()
            if tower.config.path_or_id is not None and not tower.trainable
        }

    def _check_state(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        external = self._external_towers()
        expected = {
            name: tuple(tensor.shape)
            for name, tensor in self.state_dict().items()
            if _owner(name) not in external
        }
        fix = "use the config.json and model.safetensors of one training"
        for name in sorted(expected.keys() ^ tensors.keys()):
            problem = "lacks" if name in expected else "has an unknown weight"
            raise InputError("predictor", path, f"{problem} '{name}'", fix)
        for name, tensor in tensors.items():
            if tuple(tensor.shape) != expected[name]:
                problem = f"holds '{name}' as {tuple(tensor.shape)}, not {expected[name]}"
                raise InputError("predictor", path, problem, fix)
            if not torch.isfinite(tensor).all():
                raise InputError("predictor", path, f"holds NaN in '{name}'", "train it again")


def _owner(name: str) -> str:
    return name.partition(".")[0]
