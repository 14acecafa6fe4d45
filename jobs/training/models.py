"""The models of a training: the frozen backbone, and the predictor that is trained against it."""

import re
import tempfile
from collections.abc import Sequence

import torch

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.errors import InputError
from i2l_model.predictor import LoraPredictor, PredictorConfig
from jobs import storage
from jobs.training.config import TrainingConfig
from jobs.training.predictor_options import PredictorOptions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_frozen_backbone(config: TrainingConfig, device: str) -> Backbone:
    """The backbone in the training's precision.

    Args:
        config: Which, and its precision.
        device: "cpu", or "cuda" for the process's own GPU.
    """
    place = "cpu" if device == "cpu" else f"cuda:{torch.cuda.current_device()}"
    return load_backbone(config.backbone, dtype=DTYPES[config.precision], device=place)


def load_frozen_encoders(config: TrainingConfig, device: str) -> Backbone:
    """The backbone with VAE and text encoder alone; its transformer is on the meta device."""
    backbone = load_frozen_backbone(config, "cpu")
    backbone.transformer.to("meta")
    for encoder in backbone.encoders.values():
        encoder.to(device)
    return backbone


def build_predictor(
    config: TrainingConfig, backbone: Backbone, init_uri: str | None
) -> LoraPredictor:
    """A new predictor for the backbone, or the weights of another training to start from.

    Raises:
        InputError: If no layer matches ``target_modules``, or the weights are of another
            architecture or backbone.
    """
    expected = predictor_config(config.predictor, backbone)
    torch.manual_seed(config.seed)
    predictor = LoraPredictor.build(expected)
    if init_uri is not None:
        with tempfile.TemporaryDirectory() as scratch:
            initial = LoraPredictor.from_pretrained(storage.download_folder(init_uri, scratch))
        initial.config.check_backbone(backbone)
        if initial.config.targets != expected.targets:
            fix = "use the target_modules it was trained with"
            raise InputError("init_from", init_uri, "has LoRAs for other layers", fix)
        predictor.load_state_dict(initial.state_dict())
    return predictor.train()


def predictor_config(options: PredictorOptions, backbone: Backbone) -> PredictorConfig:
    """The predictor's full configuration on a backbone.

    Raises:
        InputError: If no layer matches ``target_modules``, or the rank is too large for one.
    """
    patterns = [re.compile(pattern) for pattern in options.target_modules]
    targets = tuple(
        target
        for target in backbone.lora_targets()
        if not patterns or any(pattern.search(target.name) for pattern in patterns)
    )
    field = "training.predictor.target_modules"
    if not targets:
        some = ", ".join(target.name for target in backbone.lora_targets()[:3])
        fix = f"write expressions for names such as {some}"
        raise InputError(field, list(options.target_modules), "match no layer", fix)
    sizes = options.model_dump(exclude={"target_modules", "encoder", "dinov3"})
    try:
        return PredictorConfig(
            backbone=backbone.name,
            targets=targets,
            encoder=options.encoder,
            dinov3=options.dinov3,
            **sizes,
        )
    except ValueError as error:
        raise InputError(
            "training.predictor", sizes, f"does not fit the backbone: {error}", "change the sizes"
        ) from error


def check_sizes(sizes: Sequence[tuple[int, int]], backbone: Backbone) -> None:
    """Raise InputError if one, width and height in pixels, is no size of the backbone's."""
    for width, height in sizes:
        try:
            backbone.latent_shape(height, width)
        except InputError as error:
            problem = f"{error.field} {error.problem}"
            field, value = "training.aspect_buckets", [width, height]
            raise InputError(field, value, problem, error.fix) from error
