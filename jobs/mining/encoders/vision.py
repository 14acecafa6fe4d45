"""Vision towers in the format of transformers: SigLIP, SigLIP2, MegaStyle-Encoder and DINOv2."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from i2l_model.errors import InputError
from jobs.mining.config import EncoderConfig, ModelConfig
from jobs.mining.encoders.checkpoints import checkpoint_folder, load_pretrained
from jobs.mining.encoders.preprocessing import Pixels, Preprocess, read_preprocess

if TYPE_CHECKING:
    import torch

# N images, D features


class VisionEncoder:
    """Crops in, unit vectors out. Subclasses load the model and say what its vector is.

    Args:
        config: Path, precision and device.
        field: The setting, for error messages.
    """

    def __init__(self, config: EncoderConfig, field: str) -> None:
        self.folder = checkpoint_folder(f"{field}.path", config.path)
        self.preprocess = self.read_preprocess(field, self.folder)
        self.dtype, self.device = run_settings(config, field)
        self.model = self.load_model(field, config.dtype).to(self.device)

    @classmethod
    def read_preprocess(cls, field: str, folder: Any) -> Preprocess:
        """How the model wants its pictures."""
        return read_preprocess(f"{field}.path", folder)

    def load_model(self, field: str, dtype: str) -> Any:
        """The model, in eval mode."""
        raise NotImplementedError

    def embed(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        """(N, 3, H, W) → (N, D)."""
        raise NotImplementedError

    def __call__(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Encode N crops; captions are not read."""
        import torch

        del captions
        pixel_values = self.preprocess.tensor(images).to(self.device, self.dtype)
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(self.embed(pixel_values).float(), dim=-1)
        result: NDArray[np.float32] = vectors.cpu().numpy()
        return result


class SiglipEncoder(VisionEncoder):
    """The pooled output of a SigLIP tower of fixed resolution.

    SigLIP2's checkpoints of fixed resolution have the same format; those named "naflex" do not.
    MegaStyle-Encoder is a ``siglip-so400m-patch14-384`` tower tuned for style, see
    docs/encoders.md for how its weights become such a folder.
    """

    def load_model(self, field: str, dtype: str) -> Any:
        """SigLIP's vision tower; a folder of the whole model serves as well."""
        from transformers import SiglipVisionModel

        return load_pretrained(SiglipVisionModel, f"{field}.path", self.folder, dtype)

    def embed(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        """The attention pooling head's output."""
        pooled: torch.Tensor = self.model(pixel_values=pixel_values).pooler_output
        return pooled


class Dinov2Encoder(VisionEncoder):
    """DINOv2's class token after the final layer norm."""

    def load_model(self, field: str, dtype: str) -> Any:
        """DINOv2, with or without registers, by the folder's config."""
        from transformers import AutoModel

        return load_pretrained(AutoModel, f"{field}.path", self.folder, dtype)

    def embed(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        """The first token."""
        tokens: torch.Tensor = self.model(pixel_values=pixel_values).last_hidden_state
        return tokens[:, 0]


def run_settings(config: ModelConfig, field: str) -> "tuple[torch.dtype, torch.device]":
    """Precision and device of a model.

    Raises:
        InputError: If a GPU is asked for and there is none.
    """
    import torch

    device = config.workers.device
    if device == "cuda" and not torch.cuda.is_available():
        fix = "run on a node with a GPU, or set it to cpu"
        raise InputError(f"{field}.workers.device", device, "is not available", fix)
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype, torch.device(device)
