"""The memory that one training worker needs, estimated before anything is loaded.

What is there all the time is counted from the sizes of the weights and DeepSpeed's sharding of
them; what a pass needs comes from running it on the meta device (`memory_passes`). All is for
rank 0, which needs the most, and for the fewest workers that the training may go on with.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from i2l_model.backbones import Backbone
from i2l_model.backbones.on_meta import backbone_on_meta
from i2l_model.dinov3 import dinov3_sizes
from i2l_model.encoder import encoder_sizes
from i2l_model.predictor_sizes import on_meta
from jobs.training.config import TrainingConfig
from jobs.training.deepspeed_config import BUCKET_NUMBERS
from jobs.training.memory_passes import MetaModels, PassBytes, trace_passes
from jobs.training.models import DTYPES, check_sizes, predictor_config

_FP32 = 4
_GIB = 2**30
_TYPICAL_PROMPT = "a prompt of some length, as captions have it, " * 5
# Libraries; CUDA's context, libraries and NCCL, as measured on an H200.
_PROCESS_BYTES = {"cpu": 800 << 20, "cuda": 1700 << 20}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one worker, rank 0.

    Attributes:
        num_parameters: Parameters by part.
        kept: Bytes on the worker's device that are there all the time.
        phases: Bytes that a phase of the training needs besides; never two at once.
        parts: What the phase "training pass" holds, by part; not all at the same time.
        host: Bytes in the machine's memory; on a CPU they add to the others.
        device: "cpu" or "cuda".
    """

    num_parameters: dict[str, int]
    kept: dict[str, int]
    phases: dict[str, int]
    parts: dict[str, int]
    host: dict[str, int]
    device: str

    @property
    def total(self) -> int:
        """The most bytes at one time on the worker's device."""
        host = sum(self.host.values()) if self.device == "cpu" else 0
        return sum(self.kept.values()) + max(self.phases.values()) + host

    def described(self) -> dict[str, Any]:
        """The estimate for people: parameters, and GiB by part."""
        tables = {
            "all the time": self.kept,
            "at times, of which the greatest counts": self.phases,
            "parts of the training pass": self.parts,
            "in the machine's memory": self.host,
        }
        return {
            "parameters": self.num_parameters,
            "device": self.device,
            "GiB": {
                **{
                    title: {part: round(size / _GIB, 3) for part, size in table.items()}
                    for title, table in tables.items()
                },
                "peak": round(self.total / _GIB, 3),
            },
        }

    @property
    def greatest_phase(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=lambda phase: self.phases[phase])


@dataclass(frozen=True)
class _Sharding:
    """How DeepSpeed lays out ``trained`` parameters over the workers, in bytes a worker."""

    trained: int
    itemsize: int
    config: TrainingConfig
    device: str

    @property
    def share(self) -> int:
        """Parameters whose optimizer states this worker holds."""
        workers = self.config.fewest_workers if self.config.zero_stage >= 1 else 1
        return -(-self.trained // workers)

    @property
    def held(self) -> int:
        """Parameters whose weights this worker holds all the time."""
        return self.share if self.config.zero_stage == 3 else self.trained

    @property
    def masters(self) -> int:
        """Float32 copies, which ZeRO makes of float32 weights too."""
        plain = self.config.zero_stage == 0 and self.itemsize == _FP32
        return 0 if plain else self.share * _FP32

    @property
    def reduced(self) -> int:
        """Gradients that wait for the optimizer."""
        held = self.share if self.config.zero_stage >= 2 else self.trained
        return held * self.itemsize

    @property
    def buckets(self) -> int:
        """Buffers of gradients on their way; on a CPU their untouched pages need nothing.

        ZeRO-3 has one from the start. The others make two when the first gradient is there, which
        is the predictor's: the backbone's activations are gone by then.
        """
        stage = self.config.zero_stage
        if stage == 0:
            return 0
        if self.device == "cpu":
            return min(BUCKET_NUMBERS, self.trained) * self.itemsize
        return (1 if stage == 3 else 2) * BUCKET_NUMBERS * self.itemsize

    @property
    def step(self) -> int:
        """An optimizer step: gradients in float32 and Adam's temporary tensors."""
        gradient = self.share * (self.itemsize + (_FP32 if self.itemsize != _FP32 else 0))
        return gradient + 2 * self.share * _FP32


@dataclass(frozen=True)
class _BackboneShares:
    """The frozen transformer where several workers hold it together, in bytes of one.

    Attributes:
        whole: All of it.
        kept: What is there all the time.
        gathered: What a pass holds besides: what is outside the blocks, two blocks, since the next
            is gathered while one is at work, and the buffer that a block arrives in.
    """

    whole: int
    kept: int
    gathered: int

    @classmethod
    def of(cls, backbone: Backbone, config: TrainingConfig) -> "_BackboneShares":
        transformer = backbone.transformer
        whole = _bytes(transformer)
        shards = min(config.backbone_shards, config.fewest_workers)
        if shards == 1:
            return cls(whole, whole, 0)
        blocks = [_bytes(transformer.get_submodule(name)) for name in backbone.lora_blocks()]
        # Every weight is cut along its first side.
        kept = sum(
            -(-len(weight) // shards) * weight[0].nbytes for weight in transformer.parameters()
        )
        return cls(whole, kept, whole - sum(blocks) + 3 * max(blocks))


def estimate_memory(
    config: TrainingConfig, device: str, longest_prompt: str | None = None
) -> MemoryEstimate:
    """Estimate what one worker needs.

    Args:
        config: The training.
        device: "cpu" or "cuda".
        longest_prompt: The longest prompt of the pairs; None takes one of 230 characters.

    Raises:
        InputError: If backbone or encoder are neither released models nor folders that are here.
    """
    models = meta_models(config, longest_prompt or _TYPICAL_PROMPT)
    passes = trace_passes(models, config)
    trained = _count(models.predictor, trained=True)
    frozen = _count(models.predictor, trained=False)
    sharding = _Sharding(trained, models.backbone.dtype.itemsize, config, device)
    shares = _BackboneShares.of(models.backbone, config)
    kept = {**_weights(models, sharding, shares, frozen), **_optimizer(sharding)}
    kept["the process itself"] = _PROCESS_BYTES[device]
    host = _host(sharding, trained + frozen)
    if shares.gathered and device == "cuda":
        host["backbone while it is loaded"] = shares.whole
    if config.offload_optimizer and device == "cuda":
        host |= {name: kept.pop(name) for name in _optimizer(sharding)}
    return MemoryEstimate(
        num_parameters=_num_parameters(models, trained, frozen),
        kept=kept,
        phases={
            "cache stage": max(0, _cache_stage(models, passes) - sum(kept.values())),
            **_phases(sharding, shares, passes),
        },
        parts={
            "predictor activations": passes.predictor_activations,
            "backbone activations": passes.backbone_activations,
            "gathered backbone": shares.gathered,
            "gradients": trained * sharding.itemsize,
            "gradient buckets": sharding.buckets,
        },
        host=host,
        device=device,
    )


def meta_models(config: TrainingConfig, prompt: str) -> MetaModels:
    """Build backbone and predictor on the meta device."""
    dtype = DTYPES[config.precision]
    backbone = backbone_on_meta(config.backbone, dtype)
    if config.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    options = config.predictor
    sizes: dict[str, Any] = {"encoder": encoder_sizes(options.encoder)}
    if options.dinov3 is not None:
        sizes["dinov3"] = dinov3_sizes(options.dinov3)
    options = options.model_copy(update=sizes)
    predictor = on_meta(predictor_config(options, backbone)).to(dtype).train()
    return MetaModels(predictor, backbone, prompt, _largest_size(config, backbone))


def _largest_size(config: TrainingConfig, backbone: Backbone) -> tuple[int, int]:
    """Height and width of the targets that need the most.

    Raises:
        InputError: If a bucket is no size of the backbone's.
    """
    check_sizes(config.aspect_buckets, backbone)
    sizes = [(height, width) for width, height in config.aspect_buckets]
    return max(sizes or [(backbone.image_size, backbone.image_size)], key=math.prod)


def _weights(
    models: MetaModels, sharding: _Sharding, shares: _BackboneShares, frozen: int
) -> dict[str, int]:
    encoders = models.backbone.encoders.values()
    return {
        "trained weights": sharding.held * sharding.itemsize,
        "frozen encoders": frozen * sharding.itemsize,
        "backbone": shares.kept,
        "VAE and text encoder": sum(_bytes(encoder) for encoder in encoders),
        "weight average": sharding.share * _FP32,
    }


def _optimizer(sharding: _Sharding) -> dict[str, int]:
    """What moves to the machine's memory when the optimizer is offloaded."""
    return {
        "fp32 master copies": sharding.masters,
        "Adam moments": 2 * sharding.share * _FP32,
    }


def _cache_stage(models: MetaModels, passes: PassBytes) -> int:
    """What a process of the cache stage needs: encoders and predictor, without a training."""
    modules = [*models.backbone.encoders.values(), models.predictor]
    return sum(_bytes(module) for module in modules) + passes.caching if passes.caching else 0


def _phases(sharding: _Sharding, shares: _BackboneShares, passes: PassBytes) -> dict[str, int]:
    config, size = sharding.config, sharding.itemsize
    kept = sharding.reduced if config.zero_stage == 3 else 0  # ZeRO-3 never frees them
    accumulated = sharding.reduced if config.gradient_accumulation_steps > 1 else kept
    gathered = sharding.trained * size if config.zero_stage == 3 else 0
    loading = shares.whole - shares.kept if sharding.device == "cpu" else 0
    from_the_start = sharding.device == "cuda" and config.zero_stage == 3
    later = sum(_optimizer(sharding).values()) + sharding.share * _FP32  # not there yet
    averaged = sharding.held * size  # the trained values, while the averages are in their place
    return {
        "loading": max(0, loading - later),
        "encoding": max(0, passes.encoding - later),
        "training pass": passes.training
        + shares.gathered
        + accumulated
        + gathered
        + (sharding.buckets if from_the_start else 0),
        "gradient reduction": sharding.buckets
        + max(passes.predictor_activations, sharding.trained * size + sharding.reduced),
        "optimizer step": sharding.step + sharding.reduced,
        "validation": passes.validation + shares.gathered + averaged + gathered + kept,
        "picture": passes.picture + shares.gathered + averaged + kept,
    }


def _host(sharding: _Sharding, num_predictor: int) -> dict[str, int]:
    best = sharding.trained * _FP32
    share = 4 * -(-sharding.trained // sharding.config.fewest_workers) * _FP32
    return {
        "best weights": best,
        "copy for export": num_predictor * _FP32,
        "checkpoint copy": share,
    }


def _num_parameters(models: MetaModels, trained: int, frozen: int) -> dict[str, int]:
    parts = {"backbone": models.backbone.transformer, **models.backbone.encoders}
    counts = {name: _count(module) for name, module in parts.items()}
    return {"predictor, trained": trained, "encoders, frozen": frozen, **counts}


def _count(module: nn.Module, trained: bool | None = None) -> int:
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if trained is None or parameter.requires_grad == trained
    )


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
