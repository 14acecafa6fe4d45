"""Content from picture and caption: an image encoder and CLIP's text tower side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.mining.captions import read_caption
from jobs.mining.config import EncoderConfig
from jobs.mining.encoders.checkpoints import checkpoint_folder, load_pretrained
from jobs.mining.encoders.preprocessing import Pixels
from jobs.mining.encoders.vision import VisionEncoder, run_settings

# N images, I image features, T text features


class CaptionedEncoder:
    """The weighted concatenation (N, T + I) of caption and image vectors.

    Weights are square roots, so that the cosine of two results is the weighted mean of the
    captions' and the images' cosines. Captions lose their words of style first. A picture
    without a caption has zeros in their place and is compared by image alone.

    Args:
        image_encoder: Reads the pictures.
        config: ``text_path`` and ``text_weight``.
        field: The setting, for error messages.
    """

    def __init__(self, image_encoder: VisionEncoder, config: EncoderConfig, field: str) -> None:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        field = f"{field}.text_path"
        folder = checkpoint_folder(field, config.text_path)
        self._image_encoder = image_encoder
        _, self._device = run_settings(config, field)
        model = load_pretrained(CLIPTextModelWithProjection, field, folder, config.dtype)
        self._text_model = model.to(self._device)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._weight = config.text_weight

    def __call__(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Encode N crops and their captions."""
        prompts = [read_caption(caption).prompt for caption in captions]
        text = self._embed(prompts) * np.array([[bool(prompt)] for prompt in prompts])
        parts = (
            np.sqrt(self._weight) * text,
            np.sqrt(1 - self._weight) * self._image_encoder(images, captions),
        )
        joined = np.concatenate(parts, axis=1)
        unit: NDArray[np.float32] = joined / np.linalg.norm(joined, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def _embed(self, prompts: list[str]) -> NDArray[np.float32]:
        import torch

        limit = self._text_model.config.max_position_embeddings
        tokens = self._tokenizer(
            prompts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            embeds = self._text_model(**tokens).text_embeds.float()
        unit: NDArray[np.float32] = torch.nn.functional.normalize(embeds, dim=-1).cpu().numpy()
        return unit
