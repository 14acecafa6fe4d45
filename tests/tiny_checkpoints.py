"""Tiny randomly initialised checkpoints in the formats of the real ones, for tests."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

SIDE = 28
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}


def siglip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    SiglipVisionModel(SiglipVisionConfig(**_SIZES)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def dinov2(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    Dinov2Model(Dinov2Config(**_SIZES)).save_pretrained(folder)
    window = {"height": SIDE, "width": SIDE}
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=window).save_pretrained(folder)
    return folder


def clip(folder: Path, seed: int = 0) -> Path:
    """Image and text tower, image processor and tokenizer in one folder."""
    torch.manual_seed(seed)
    words = ["<pad>", "<eos>", "<unk>", "a", "red", "dog", "cat", "on", "the", "beach"]
    text = {name: _SIZES[name] for name in _SIZES if name not in ("image_size", "patch_size")}
    text |= {"vocab_size": len(words), "max_position_embeddings": 8, "eos_token_id": 1}
    projection = {"projection_dim": 16}  # in all three places, as in the released configs
    config = CLIPConfig(
        vision_config=_SIZES | projection, text_config=text | projection, **projection
    )
    CLIPModel(config).save_pretrained(folder)
    window = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=window).save_pretrained(folder)
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: tuple[str, ...], seed: int = 0) -> Path:
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(labels)), "num_labels": len(labels)}
    ViTForImageClassification(ViTConfig(**_SIZES, **named)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


class OpenAiTower(nn.Module):
    """OpenAI's CLIP vision tower with CSD's heads, under the released tensor names."""

    def __init__(self, width: int = 64, layers: int = 2, patch: int = 32, side: int = 224) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.backbone.class_embedding = nn.Parameter(torch.randn(width))
        grid = side // patch
        self.backbone.positional_embedding = nn.Parameter(torch.randn(1 + grid * grid, width))
        self.backbone.ln_pre = nn.LayerNorm(width)
        self.backbone.ln_post = nn.LayerNorm(width)
        self.backbone.transformer = nn.Module()
        self.backbone.transformer.resblocks = nn.ModuleList(
            _ResidualBlock(width) for _ in range(layers)
        )
        self.last_layer_style = nn.Parameter(torch.randn(width, 24))
        self.last_layer_content = nn.Parameter(torch.randn(width, 24))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tower = self.backbone
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
        start = tower.class_embedding.expand(len(pixels), 1, -1)
        tokens = tower.ln_pre(torch.cat([start, patches], dim=1) + tower.positional_embedding)
        for block in tower.transformer.resblocks:
            tokens = block(tokens)
        return nn.functional.normalize(tower.ln_post(tokens[:, 0]) @ self.last_layer_style)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        hidden = self.mlp["c_fc"](self.ln_2(tokens))
        return tokens + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


def csd(folder: Path, prefix: str = "", seed: int = 0) -> OpenAiTower:
    """Write a CSD folder and return the module that it is of."""
    torch.manual_seed(seed)
    module = OpenAiTower().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return module


def damage_weights(file: Path, damage: str) -> None:
    """Take one tensor ("missing") or the last bytes ("cut") from a safetensors file."""
    if damage == "missing":
        weights = load_file(file)
        del weights[max(weights)]
        save_file(weights, file, {"format": "pt"})
    else:
        file.write_bytes(file.read_bytes()[:-8])
