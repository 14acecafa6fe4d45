"""Backbones on the meta device: every size and shape, no weights and no memory."""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    ZImagePipeline,
)
from torch import nn
from transformers import AutoConfig, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from i2l_model.backbones.base import Backbone
from i2l_model.backbones.flux2 import Flux2Backbone
from i2l_model.backbones.hidream_o1 import (
    HIDREAM_IMAGE_SIZE,
    HiDreamO1Backbone,
    HiDreamO1ForImageGeneration,
)
from i2l_model.backbones.loading import PIPELINES, identify
from i2l_model.backbones.released import RELEASED, Released
from i2l_model.backbones.zimage import ZImageBackbone

_CHARACTERS_PER_TOKEN = 4  # of English in the usual vocabularies
# width, layers, heads, keys' heads and MLP width of the text encoders
_QWEN3_4B = (2560, 36, 32, 8, 9728)
_QWEN3_8B = (4096, 36, 32, 8, 12_288)
_MISTRAL_24B = (5120, 40, 32, 8, 32_768)


def backbone_on_meta(path_or_id: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """Return a backbone whose weights are on the meta device, from its configuration files.

    Of a released model, known by its hub id, nothing is read: its sizes are known here, and its
    tokenizer is a stand-in that counts four characters a token.

    Args:
        path_or_id: As `load_backbone` takes it.
        dtype: Dtype of all weights.

    Raises:
        InputError: If nothing is found there, or it is of an unsupported class.
    """
    for model in RELEASED.values():
        if model.hub_id == path_or_id:
            return _released(model, dtype)
    source, name, kind = identify(path_or_id)
    if kind in PIPELINES:
        return _from_pipeline(source, name, kind, dtype)
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(source)
        transformer = HiDreamO1ForImageGeneration(config).model.to(dtype)
    transformer.visual = None
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    size = getattr(config, "image_size", HIDREAM_IMAGE_SIZE)
    return HiDreamO1Backbone(transformer, tokenizer, name, image_size=size)


def prompt_on_meta(backbone: Backbone, prompt: str) -> torch.Tensor:
    """Return what `Backbone.encode_prompts` gives for a prompt, on the meta device.

    Only the tokenizer runs.
    """
    if isinstance(backbone, ZImageBackbone):
        num_tokens = backbone.num_prompt_tokens(prompt)
        width = int(backbone.transformer.config.cap_feat_dim)
        return torch.empty(num_tokens, width, device="meta", dtype=backbone.dtype)
    if isinstance(backbone, Flux2Backbone):
        config: Any = backbone.transformer.config
        width = int(config.joint_attention_dim)
        shape = (backbone.max_prompt_tokens, width)
        return torch.empty(shape, device="meta", dtype=backbone.dtype)
    return backbone.encode_prompts([prompt])[0]


def _from_pipeline(source: str, name: str, kind: str, dtype: torch.dtype) -> Backbone:
    """The adapter over a pipeline whose modules are built from their configuration files."""
    pipeline_class, adapter = PIPELINES[kind]
    index = pipeline_class.load_config(source)
    parts: dict[str, Any] = {}
    for part, value in index.items():
        if part.startswith("_"):
            continue
        if isinstance(value, Sequence) and not isinstance(value, str):
            library, class_name = value
            value = _part(source, part, library, class_name, dtype)
        parts[part] = value
    adapted: Any = adapter
    backbone: Backbone = adapted(pipeline_class(**parts), name)
    return backbone


def _part(source: str, part: str, library: str, class_name: str, dtype: torch.dtype) -> Any:
    if library == "diffusers":
        found = getattr(diffusers, class_name)
        config = found.load_config(source, subfolder=part)
        if part == "scheduler":
            return found.from_config(config)
        with torch.device("meta"):
            return nn.Module.to(found.from_config(config), dtype)  # diffusers' own warns of nothing
    found = getattr(transformers, class_name)
    if part in ("tokenizer", "processor"):
        return found.from_pretrained(source, subfolder=part)
    with torch.device("meta"):
        return found(AutoConfig.from_pretrained(source, subfolder=part)).to(dtype)


def _released(model: Released, dtype: torch.dtype) -> Backbone:
    transformer: Any = nn.Module.to(model.transformer(), dtype)  # diffusers' own warns of nothing
    tokenizer = _CountingTokenizer()
    if issubclass(model.backbone, HiDreamO1Backbone):
        size = HIDREAM_IMAGE_SIZE
        return HiDreamO1Backbone(transformer, tokenizer, model.hub_id, image_size=size)
    parts: dict[str, Any] = {"transformer": transformer}
    parts |= {"scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "tokenizer": tokenizer}
    adapter: Any = model.backbone
    if issubclass(adapter, ZImageBackbone):
        parts |= {"text_encoder": _text_encoder(*_QWEN3_4B), "vae": _flux_vae()}
        return ZImageBackbone(ZImagePipeline(**_to(parts, dtype)), model.hub_id)
    text_dim = int(transformer.config.joint_attention_dim) // 3
    sizes = {sizes[0]: sizes for sizes in (_QWEN3_4B, _QWEN3_8B, _MISTRAL_24B)}[text_dim]
    with torch.device("meta"):
        parts |= {"text_encoder": _text_encoder(*sizes), "vae": AutoencoderKLFlux2()}
    return Flux2Backbone(Flux2KleinPipeline(**_to(parts, dtype)), model.hub_id)


def _to(parts: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    modules = ("text_encoder", "vae")
    return {n: nn.Module.to(part, dtype) if n in modules else part for n, part in parts.items()}


def _flux_vae() -> AutoencoderKL:
    widths = (128, 256, 512, 512)
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            layers_per_block=2,
            latent_channels=16,
            sample_size=1024,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )


def _text_encoder(
    width: int, num_layers: int, num_heads: int, num_key_heads: int, mlp_width: int
) -> Qwen3ForCausalLM:
    """A language model of those sizes; FLUX.2-dev's is a Mistral of the same structure."""
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_key_heads,
        head_dim=128,
        intermediate_size=mlp_width,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        return Qwen3ForCausalLM(config)


class _CountingTokenizer:
    """Stands in for a released model's tokenizer: as many ids as a text of that length has."""

    model_max_length = 512

    def __call__(self, texts: str | list[str], **_: Any) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": self._ids(texts)}
        return {"input_ids": [self._ids(text) for text in texts]}

    def _ids(self, text: str) -> list[int]:
        return [0] * -(-len(text) // _CHARACTERS_PER_TOKEN)

    def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
        return "".join(turn["content"] for turn in turns) + " " * 8 * _CHARACTERS_PER_TOKEN

    def get_vocab(self) -> dict[str, int]:
        return {"<|boi_token|>": 0, "<|tms_token|>": 0}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [0] * len(tokens)
