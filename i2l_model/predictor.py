"""The predictor: reference images to the weights of a style LoRA, in one forward pass.

Learned queries and the references' patch tokens go through one transformer; only the query outputs
are decoded, by compressed heads, into lora_A and lora_B (paper section on the i2L architecture).
"""

# N LoRAs, K references, H W pixels, T tokens of an image, E encoder features, D dim

from pathlib import Path

import torch
from torch import nn

from i2l_model.encoder import ReferenceEncoder
from i2l_model.errors import InputError
from i2l_model.heads import CompressedHeads
from i2l_model.lora.factors import LoraFactors
from i2l_model.predictor_config import PredictorConfig, read_config
from i2l_model.references import reference_shares
from i2l_model.transformer import SingleStreamTransformer
from i2l_model.weights import read_weights, write_bytes, write_weights

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_FINGERPRINT = "encoder_fingerprint"
_MID_GRAY = 128 / 127.5 - 1  # pixel value 128

__all__ = ["LoraPredictor", "PredictorConfig"]


class LearnedQueries(nn.Module):
    """The queries, the same for every LoRA."""

    def __init__(self, num_queries: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_queries, dim))

    def forward(self, num_loras: int) -> torch.Tensor:
        """Return them as (N, num_queries, D)."""
        return self.weight.expand(num_loras, -1, -1)


class LoraPredictor(nn.Module):
    """Predicts LoRAs of fixed rank from one or more references.

    The order of the references has no effect, nor has repeating all of them: their tokens share
    the attention according to their weights. An untrained predictor changes nothing.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ReferenceEncoder(config.encoder)
        self.projection = nn.Linear(self.encoder.hidden_size, config.dim)
        self.heads = CompressedHeads(
            config.targets,
            dim=config.dim,
            compress_dim=config.compress_dim,
            rank=config.rank,
            queries_per_factor=config.queries_per_factor,
        )
        self.queries = LearnedQueries(self.heads.num_queries, config.dim)
        self.transformer = SingleStreamTransformer(config.dim, config.depth, config.num_heads)

    @classmethod
    def build(cls, config: PredictorConfig) -> "LoraPredictor":
        """Build an untrained predictor; its encoder is pretrained where the config names one."""
        return cls(config)

    @property
    def image_size(self) -> int:
        """Side of the reference images in pixels."""
        return self.encoder.image_size

    def forward(
        self,
        ref_images: torch.Tensor,
        ref_mask: torch.Tensor | None = None,
        ref_weights: torch.Tensor | None = None,
    ) -> LoraFactors:
        """Predict one LoRA for each row of references.

        Args:
            ref_images: (N, K, 3, H, W) in [-1, 1] with H = W = `image_size`.
            ref_mask: (N, K) bool, False where a reference is absent; None means all are there.
            ref_weights: (N, K) how much each reference counts, relative to the others of its row;
                None weighs them equally, 0 drops one.

        Returns:
            N LoRAs.

        Raises:
            InputError: If the shapes disagree, a row has no reference, there are more than
                ``max_refs``, or a present reference or a weight is not finite.
        """
        shares = reference_shares(ref_images, ref_mask, ref_weights, max_refs=self.config.max_refs)
        tokens = self.encode_references(ref_images, shares > 0)
        return self.predict_from_tokens(tokens, shares)

    def encode_references(
        self, ref_images: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the encoder's tokens (N, K, T, E); absent references are not read and give zeros.

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
        tokens: torch.Tensor = self.encoder(images.to(self.projection.weight.dtype))
        if rows is not None:
            full = tokens.new_zeros(N * K, *tokens.shape[1:])
            tokens = full.index_copy(0, rows, tokens)
        return tokens.view(N, K, *tokens.shape[1:])

    def predict_from_tokens(self, tokens: torch.Tensor, shares: torch.Tensor) -> LoraFactors:
        """Predict LoRAs from encoder tokens, e.g. cached ones of a frozen encoder.

        Args:
            tokens: (N, K, T, E) from `encode_references`.
            shares: (N, K) the references' shares of the attention, which sum to 1 in every row;
                0 masks a reference.
        """
        N, K, T = tokens.shape[:3]
        refs = self.projection(tokens.to(self.projection.weight.dtype)).flatten(1, 2)
        queries = self.queries(N).to(refs.dtype)
        key_bias = None
        if K > 1:
            ref_bias = shares.to(refs).log().repeat_interleave(T, dim=1)
            key_bias = torch.cat([ref_bias.new_zeros(N, queries.shape[1]), ref_bias], dim=1)
        outputs = self.transformer(torch.cat([queries, refs], dim=1), key_bias, queries.shape[1])
        lora: LoraFactors = self.heads(outputs, self.config.lora_scale)
        return lora

    @torch.no_grad()
    def predict_neutral(self, num_refs: int = 1) -> LoraFactors:
        """Return the LoRA (N = 1) of mid-gray references, for the "neutral_negative" guidance."""
        size, device = self.image_size, self.projection.weight.device
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
        state = self.state_dict()
        metadata = {"format": "pt"}
        if self._encoder_is_external():
            state = {name: t for name, t in state.items() if not name.startswith("encoder.")}
            metadata[_FINGERPRINT] = self.encoder.fingerprint()
        write_weights(state, folder / _WEIGHTS, metadata)
        config = self.config
        if not self._encoder_is_external():  # its weights are in the file: drop the source
            config = config.model_copy(update={"encoder": self.encoder.sizes()})
        write_bytes((config.model_dump_json(indent=2) + "\n").encode(), folder / _CONFIG)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device = "cpu"
    ) -> "LoraPredictor":
        """Load a predictor in eval mode from a folder that `save_pretrained` wrote.

        Raises:
            InputError: If a file is missing or damaged, a setting is invalid, a weight is missing,
                unknown, of the wrong shape or not finite, or the encoder's weights have changed.
        """
        folder = Path(folder)
        config = read_config(folder / _CONFIG)
        tensors, metadata = read_weights(folder / _WEIGHTS, field="predictor")
        predictor = cls(config)
        external = predictor._encoder_is_external()
        predictor._check_state(tensors, folder / _WEIGHTS)
        predictor.load_state_dict(tensors, strict=False)
        if external and metadata.get(_FINGERPRINT) != predictor.encoder.fingerprint():
            raise InputError(
                "encoder.path_or_id",
                config.encoder.path_or_id,
                "holds other weights than the predictor was trained with",
                "restore the encoder or train the predictor again",
            )
        return predictor.to(device).eval()

    def _encoder_is_external(self) -> bool:
        return self.config.encoder.path_or_id is not None and not self.config.encoder.trainable

    def _check_state(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        expected = {
            name: tuple(tensor.shape)
            for name, tensor in self.state_dict().items()
            if not (self._encoder_is_external() and name.startswith("encoder."))
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
