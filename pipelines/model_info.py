"""What a predictor costs: parameters, bytes of its LoRA, memory to infer.

What its training needs is estimated by `jobs.training.memory`.
"""

from dataclasses import dataclass

from i2l_model.predictor import LoraPredictor

_FP32, _BF16 = 4, 2


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Counts and bytes; the activations are an estimate.

    Attributes:
        backbone: Name of the backbone.
        version: Architecture of the predictor.
        num_parameters: Parameters of the predictor by part.
        num_trained: Of them trained.
        num_backbone_parameters: Of the backbone's transformer; None where it is not known.
        num_targets: Layers that a LoRA updates.
        num_queries: Queries; 0 in version 1.
        lora_rank: Rank of a LoRA from one reference.
        lora_parameters: Numbers in that LoRA.
        lora_bytes: Their bytes by dtype, without the file's header; i2l predict writes float32.
        infer_bytes: Memory to infer by kind, the backbone in bfloat16.
    """

    backbone: str
    version: int
    num_parameters: dict[str, int]
    num_trained: int
    num_backbone_parameters: int | None
    num_targets: int
    num_queries: int
    lora_rank: int
    lora_parameters: int
    lora_bytes: dict[str, int]
    infer_bytes: dict[str, int]


def model_info(
    predictor: LoraPredictor, num_backbone_parameters: int | None = None, *, num_refs: int = 4
) -> ModelInfo:
    """Describe a predictor; it may be on the meta device.

    Args:
        predictor: The predictor.
        num_backbone_parameters: Parameters of the backbone's transformer, if known.
        num_refs: References of one LoRA, for the activations.
    """
    config = predictor.config
    weights = list(predictor.parameters())
    total = sum(weight.numel() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    lora = config.rank * sum(t.in_features + t.out_features for t in config.targets)
    backbone = (num_backbone_parameters or 0) * _BF16
    numbers = _activations(predictor, num_refs)
    return ModelInfo(
        backbone=config.backbone,
        version=config.version,
        num_parameters=predictor.num_parameters(),
        num_trained=trained,
        num_backbone_parameters=num_backbone_parameters,
        num_targets=len(config.targets),
        num_queries=predictor.heads.num_queries if config.version == 2 else 0,
        lora_rank=config.rank,
        lora_parameters=lora,
        lora_bytes={"float32": lora * _FP32, "bfloat16": lora * _BF16},
        infer_bytes={
            "predictor weights, fp32": total * _FP32,
            "backbone, bf16": backbone,
            "activations of one LoRA, estimate": (numbers + lora) * _BF16,
        },
    )


def _activations(predictor: LoraPredictor, num_refs: int) -> int:
    """Numbers of one block at work: about 16 * dim a token (attention and MLP of 4)."""
    config = predictor.config
    if config.version == 1:
        return 2 * num_refs * len(config.targets) * config.compress_dim
    patches: int = (predictor.image_size // predictor.encoder.vision.config.patch_size) ** 2
    if config.dinov3 is not None:
        patches += (predictor.image_size // predictor.dinov3.vision.config.patch_size) ** 2
    tokens: int = predictor.heads.num_queries + num_refs * patches
    return 16 * tokens * config.dim
