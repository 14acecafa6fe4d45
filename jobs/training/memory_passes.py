"""The passes of a training on the meta device, and the memory that each needs at once."""

# N styles, K targets a style, F references, B = N * K

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from i2l_model.backbones import Backbone
from i2l_model.backbones.on_meta import prompt_on_meta
from i2l_model.lora import LoraFactors
from i2l_model.predictor import LoraPredictor
from jobs.training.config import TrainingConfig
from jobs.training.objective import Supervision, supervised_loss
from jobs.training.traced_memory import traced_memory

_CONDITIONS = 3  # right, wrong and no references


@dataclass(frozen=True)
class PassBytes:
    """Bytes above the weights that are there all the time.

    Attributes:
        predictor_activations: What the predictor keeps for the backward pass.
        backbone_activations: What the backbone with the LoRAs keeps.
        training: The most at one time of a forward and backward pass, its gradients included.
        encoding: The most while a worker encodes targets and prompts.
        caching: The most while the cache stage encodes; 0 without one.
        validation: The most while held-out losses are measured.
        picture: The most while rank 0 draws the validation picture; 0 without one.
    """

    predictor_activations: int
    backbone_activations: int
    training: int
    encoding: int
    caching: int
    validation: int
    picture: int


@dataclass(frozen=True)
class MetaModels:
    """A predictor and its backbone on the meta device, in the training's dtype.

    Attributes:
        predictor: The predictor.
        backbone: The backbone.
        prompt: A prompt of the greatest length.
        size: Height and width in pixels of the largest target images.
    """

    predictor: LoraPredictor
    backbone: Backbone
    prompt: str
    size: tuple[int, int]

    def references(self, num: int, num_refs: int) -> tuple[torch.Tensor, ...]:
        """The encoders' tokens of ``num`` rows of references."""
        side = self.predictor.image_size
        images = torch.empty(num, num_refs, 3, side, side, device="meta", dtype=torch.uint8)
        scaled = images.to(self.backbone.dtype) / 127.5 - 1
        tokens = [tower(scaled.flatten(0, 1)) for tower in self.predictor.towers.values()]
        return tuple(part.view(num, num_refs, *part.shape[1:]) for part in tokens)

    def predict(
        self, num: int, num_refs: int, tokens: tuple[torch.Tensor, ...] | None = None
    ) -> LoraFactors:
        """Predict ``num`` LoRAs, from tokens if they are given."""
        shares = torch.empty(num, num_refs, device="meta")
        if tokens is None:
            tokens = self.references(num, num_refs)
        factors = self.predictor.predict_from_tokens(tokens, shares)
        return factors.to(dtype=self.backbone.dtype)

    def loss(self, num: int, factors: LoraFactors | None) -> torch.Tensor:
        """Losses of ``num`` targets."""
        shape = (num, *self.backbone.latent_shape(*self.size))
        data, noise = (torch.empty(shape, device="meta") for _ in range(2))
        embeds = [prompt_on_meta(self.backbone, self.prompt)] * num
        sigmas = torch.empty(num, device="meta")
        return supervised_loss(self.backbone, Supervision(data, noise, sigmas, embeds), factors)


def trace_passes(models: MetaModels, config: TrainingConfig) -> PassBytes:
    """Run every pass of a training once, on the meta device."""
    predictor_kept, backbone_kept, training = _training_pass(models, config)
    return PassBytes(
        predictor_activations=predictor_kept,
        backbone_activations=backbone_kept,
        training=training,
        encoding=_worker_encoding(models, config),
        caching=_caching(models, config),
        validation=_validation(models, config),
        picture=_picture(models, config),
    )


def _training_pass(models: MetaModels, config: TrainingConfig) -> tuple[int, int, int]:
    N, K = config.micro_styles, config.targets_per_style
    cached = None
    if config.cache and not any(tower.trainable for tower in models.predictor.towers.values()):
        cached = models.references(N, config.max_refs)  # read with the batch
    with traced_memory() as live:
        factors = models.predict(N, config.max_refs, cached)
        predictor_kept = live.now
        loss = models.loss(N * K, factors).mean()
        backbone_kept = live.now - predictor_kept
        del factors
        loss.backward()
    models.predictor.zero_grad(set_to_none=True)
    return predictor_kept, backbone_kept, live.peak


def _worker_encoding(models: MetaModels, config: TrainingConfig) -> int:
    num = config.validation_targets  # of one style at a time, at the start
    if not config.cache:
        num = max(num, config.micro_styles * config.targets_per_style)
    return _encoding(models, num)


@torch.no_grad()
def _caching(models: MetaModels, config: TrainingConfig) -> int:
    if not config.cache:
        return 0
    num = config.encode_batch_size
    with traced_memory() as live:
        models.references(num, 1)
    return max(live.peak, _encoding(models, num) if models.backbone.has_frozen_encoders else 0)


@torch.no_grad()
def _encoding(models: MetaModels, num: int) -> int:
    with traced_memory() as live:
        images = torch.empty(num, 3, *models.size, device="meta", dtype=torch.uint8)
        models.backbone.encode_images(images.float() / 127.5 - 1)
    return max(live.peak, _text_encoding(models, num))


def _text_encoding(models: MetaModels, num: int) -> int:
    """All hidden states of a text encoder, and one layer's MLP."""
    encoder: nn.Module | None = getattr(models.backbone, "text_encoder", None)
    if encoder is None:
        return 0
    config: Any = encoder.config
    config = getattr(config, "text_config", config)
    tokens = num * len(prompt_on_meta(models.backbone, models.prompt))
    numbers = (config.num_hidden_layers + 1) * config.hidden_size + 3 * config.intermediate_size
    return int(tokens * numbers * models.backbone.dtype.itemsize)


@torch.no_grad()
def _validation(models: MetaModels, config: TrainingConfig) -> int:
    N = min(config.micro_styles, config.validation_styles)
    num = N * config.validation_targets * len(config.validation_sigmas)
    with traced_memory() as live:
        conditions = [models.predict(N, config.max_refs) for _ in range(_CONDITIONS - 1)]
        models.loss(num, conditions[0])
    return live.peak


@torch.no_grad()
def _picture(models: MetaModels, config: TrainingConfig) -> int:
    if not config.grid_styles:
        return 0
    N = config.grid_styles
    with traced_memory() as live:
        factors = [models.predict(N, num_refs) for num_refs in (1, config.max_refs)]
        models.loss(N, factors[0])
        shape = (N, *models.backbone.latent_shape(*models.size))
        models.backbone.decode_latents(torch.empty(shape, device="meta"))
    return live.peak
