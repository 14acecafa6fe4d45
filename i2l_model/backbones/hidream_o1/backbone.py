"""HiDream-O1 behind the `Backbone` interface.

Differences to the project's convention, all handled here: there is no VAE, latents are RGB in
[-1, 1] and noise is eight times as strong; the time is ``1 - sigma``; the model predicts the clean
image. It reads the prompt itself, so that a LoRA changes how prompts are understood.
"""

# B batch, H W pixels, T text tokens, h w patches

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from diffusers import UniPCMultistepScheduler
from torch.nn.utils.rnn import pad_sequence

from i2l_model.backbones.base import Backbone, latent_cells
from i2l_model.backbones.hidream_o1.layout import IMAGE_POSITION
from i2l_model.backbones.hidream_o1.model import PATCH_PX, HiDreamO1Model
from i2l_model.errors import InputError
from i2l_model.lora.injection import checkpoint_with_lora
from i2l_model.samplers import FlashSampler, Sampler, UniPCSampler

_SHIFT = 3.0
_MIN_SIGMA = 1e-3  # the velocity divides by sigma
HIDREAM_IMAGE_SIZE = 2048
"""Side of a square image that the released models draw, in pixels."""
_NOISE_SCALE, _DEV_NOISE_SCALE = 8.0, 7.5
_TURN_START, _TURN_END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_BOI, _TMS = "<|boi_token|>", "<|tms_token|>"
_NO_PROMPT = " "
# dev was distilled to these noise levels, in thousandths
_DEV_LEVELS = [999, 987, 974, 960, 945, 929, 913, 895, 877, 857, 836, 814, 790, 764, 737, 707, 675]
_DEV_LEVELS += [640, 602, 560, 515, 464, 409, 347, 278, 199, 110, 8]


class HiDreamO1Backbone(Backbone):
    """HiDream-O1-Image, full or dev.

    Args:
        model: The model; it is frozen and put in eval mode. Its vision tower is not used.
        tokenizer: The checkpoint's.
        name: The backbone's name, see `Backbone`.
        dev: Whether it is the distilled variant: fixed noise levels, noise that is drawn anew at
            each step, and no guidance.
        image_size: Default side of a square image in pixels.
    """

    family = "hidream-o1"
    has_frozen_encoders = False
    entry_point = "predict_patches"
    # attention and feed-forward linears of the language model
    target_pattern = re.compile(
        r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    )

    def __init__(
        self,
        model: HiDreamO1Model,
        tokenizer: Any,
        name: str,
        *,
        dev: bool = False,
        image_size: int = HIDREAM_IMAGE_SIZE,
    ) -> None:
        lost = [token for token in (_BOI, _TMS) if token not in tokenizer.get_vocab()]
        if lost:
            problem = f"has a tokenizer without {lost[0]}"
            raise InputError("backbone", name, problem, "give a checkpoint of HiDream-O1-Image")
        self.name = name
        self.transformer: Any = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.dev = dev
        self.image_size = image_size
        self.noise_scale = _DEV_NOISE_SCALE if dev else _NOISE_SCALE

    @property
    def distilled(self) -> bool:
        """Whether it is the dev model."""
        return self.dev

    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Return one (T_i,) int64 tensor a prompt: the ids of its chat turn and the time slot.

        An empty prompt is a space, as in training.

        Raises:
            InputError: If a prompt runs into the image's positions.
        """
        return [self._ids(prompt or _NO_PROMPT) for prompt in prompts]

    def _ids(self, prompt: str) -> torch.Tensor:
        ids: list[int] = []
        for part in (_TURN_START, prompt, _TURN_END):  # apart, so that no token spans two
            ids += self.tokenizer(part, add_special_tokens=False)["input_ids"]
        ids += self.tokenizer.convert_tokens_to_ids([_BOI, _TMS])
        if len(ids) > IMAGE_POSITION:
            problem = f"has {len(ids)} tokens, above {IMAGE_POSITION}"
            raise InputError("prompt", f"{prompt[:40]}...", problem, "shorten it")
        return torch.tensor(ids, device=self.device)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images (B, 3, H, W) as they are, float32."""
        self.latent_shape(images.shape[2], images.shape[3])
        return images.to(self.device, torch.float32)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents (B, 3, H, W) as they are, float32."""
        return latents.float()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (3, H, W); both sides must be multiples of a patch."""
        latent_cells(height, width, PATCH_PX)
        return 3, height, width

    def sample_sigmas(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw (num,) noise levels: uniform, then a static shift by 3."""
        return self._shifted_uniform(num, generator, _SHIFT)

    def loss_weights(self, sigmas: torch.Tensor) -> torch.Tensor:
        """Return sigma^2 (B,): the velocity's error is the image's error divided by it."""
        return sigmas.clamp(min=_MIN_SIGMA).square()

    def inference_sigmas(self, num_inference_steps: int, height: int, width: int) -> torch.Tensor:
        """Return (S + 1,) levels from 1 to 0: evenly spaced and shifted, or those of dev."""
        if num_inference_steps < 1:
            raise InputError("num_inference_steps", num_inference_steps, "must be >= 1", "raise it")
        if not self.dev:
            sigmas = torch.linspace(1, 0, num_inference_steps + 1, device=self.device)
            return _SHIFT * sigmas / (1 + (_SHIFT - 1) * sigmas)
        most = len(_DEV_LEVELS)
        if num_inference_steps > most:
            problem = f"must be at most {most} for a distilled model"
            raise InputError("num_inference_steps", num_inference_steps, problem, "lower it")
        places = torch.linspace(0, most - 1, num_inference_steps).round().int().tolist()
        levels = [_DEV_LEVELS[place] / 1000 for place in places]
        return torch.tensor([*levels, 0.0], device=self.device)

    def sampler(self, num_inference_steps: int, height: int, width: int) -> Sampler:
        """Return UniPC of second order, or dev's steps with fresh noise."""
        sigmas = self.inference_sigmas(num_inference_steps, height, width)
        if self.dev:
            return FlashSampler(sigmas, self.noise_scale)
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=_SHIFT
        )
        return UniPCSampler(scheduler, num_inference_steps, self.device)

    def pipeline(self) -> NoReturn:
        """Raise InputError: diffusers has no pipeline for this model."""
        raise InputError("backbone", self.name, "has no diffusers pipeline", "use i2l generate")

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the language model's layers in the backward pass, with their LoRAs."""
        for layer in self.transformer.language_model.layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = checkpoint_with_lora
            layer.training = True  # what transformers asks for; there is no dropout in a layer

    def _predict_velocity(
        self, latents: torch.Tensor, sigmas: torch.Tensor, prompt_embeds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        noisy = latents.to(self.device, torch.float32)
        sigmas = sigmas.to(self.device, torch.float32)
        patches = F.pixel_unshuffle(noisy, PATCH_PX)
        h, w = patches.shape[2:]
        ids = [ids.to(self.device, torch.long) for ids in prompt_embeds]
        clean = self.transformer.predict_patches(
            patches.flatten(2).mT,
            1 - sigmas,
            pad_sequence(ids, batch_first=True, padding_side="left"),
            torch.tensor([len(row) for row in ids], device=self.device),
            (h, w),
        )
        clean = F.pixel_shuffle(clean.mT.unflatten(2, (h, w)), PATCH_PX)
        return (noisy - clean) / sigmas.clamp(min=_MIN_SIGMA)[:, None, None, None]
