"""CSD: a CLIP ViT-L/14 tower tuned for style (Somepalli et al. 2024, arXiv:2404.01292).

The folder holds one safetensors file with the tensor names of the released checkpoint's
``model_state_dict`` (a "module." in front is accepted)::

    backbone.class_embedding                          (width,)
    backbone.positional_embedding                     (1 + grid * grid, width)
    backbone.conv1.weight                             (width, 3, patch, patch)
    backbone.ln_pre.{weight,bias}, backbone.ln_post.{weight,bias}
    backbone.transformer.resblocks.<n>.ln_1.{weight,bias}, .ln_2.{weight,bias}
    backbone.transformer.resblocks.<n>.attn.in_proj_{weight,bias}
    backbone.transformer.resblocks.<n>.attn.out_proj.{weight,bias}
    backbone.transformer.resblocks.<n>.mlp.c_fc.{weight,bias}, .mlp.c_proj.{weight,bias}
    last_layer_style                                  (width, features)

Sizes follow from the shapes; heads are 64 features wide, as in every CLIP tower. The content head
``last_layer_content`` is read over: content is another encoder's task.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2l_model.errors import InputError
from jobs.mining.encoders.preprocessing import Preprocess, read_preprocess
from jobs.mining.encoders.vision import VisionEncoder

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

HEAD_FEATURES = 64
SIDE = 224
_BLOCK = "backbone.transformer.resblocks."
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class CsdEncoder(VisionEncoder):
    """``normalize(ln_post(class token) @ last_layer_style)``, as released."""

    @classmethod
    def read_preprocess(cls, field: str, folder: Any) -> Preprocess:
        """The released preprocessing, CLIP's at 224 px, unless the folder has its own."""
        if (folder / "preprocessor_config.json").is_file():
            return read_preprocess(f"{field}.path", folder)
        return Preprocess.clip(SIDE)

    def load_model(self, field: str, dtype: str) -> Any:
        """CLIP's tower with the style head as its projection."""
        import torch

        state = read_state(f"{field}.path", self.folder)
        try:
            model = build_tower(state)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            problem = f"holds no CSD weights ({type(error).__name__}: {reason})"
            fix = "convert the released checkpoint, see docs/encoders.md"
            raise InputError(f"{field}.path", self.folder, problem, fix) from error
        return model.to(getattr(torch, dtype)).eval().requires_grad_(False)

    def embed(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        """The style head's output."""
        embeds: torch.Tensor = self.model(pixel_values=pixel_values).image_embeds
        return embeds


def read_state(field: str, folder: Path) -> "State":
    """The tensors of the folder's single safetensors file."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        problem = f"holds {len(files)} safetensors files"
        raise InputError(field, folder, problem, "leave the one with CSD's weights")
    try:
        state = load_file(files[0])
    except Exception as error:  # safetensors raises an own type on damaged files
        raise InputError(field, files[0], "is damaged", "copy it again") from error
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def build_tower(state: "State") -> Any:
    """CLIP's vision model of transformers with these weights.

    Raises:
        KeyError, RuntimeError: If tensors are missing or of the wrong shape.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, _, patch, _ = state["backbone.conv1.weight"].shape
    num_tokens = state["backbone.positional_embedding"].shape[0]
    numbers = [int(m[1]) for n in state if (m := re.match(re.escape(_BLOCK) + r"(\d+)\.", n))]
    num_layers = max(numbers) + 1
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=state[f"{_BLOCK}0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=num_layers,
            num_attention_heads=max(1, width // HEAD_FEATURES),
            image_size=patch * round((num_tokens - 1) ** 0.5),
            patch_size=patch,
            projection_dim=state["last_layer_style"].shape[1],
            hidden_act="quick_gelu",
        )
    )
    model.load_state_dict(_renamed(state, num_layers))
    return model


def _renamed(state: "State", num_layers: int) -> "State":
    """OpenAI's names → those of transformers; q, k and v lie in one tensor there."""
    tower = "vision_model."
    renamed = {
        f"{tower}embeddings.class_embedding": state["backbone.class_embedding"],
        f"{tower}embeddings.position_embedding.weight": state["backbone.positional_embedding"],
        f"{tower}embeddings.patch_embedding.weight": state["backbone.conv1.weight"],
        "visual_projection.weight": state["last_layer_style"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        renamed[f"{tower}pre_layrnorm.{kind}"] = state[f"backbone.ln_pre.{kind}"]
        renamed[f"{tower}post_layernorm.{kind}"] = state[f"backbone.ln_post.{kind}"]
        for number in range(num_layers):
            ours, theirs = f"{tower}encoder.layers.{number}.", f"{_BLOCK}{number}."
            for theirs_part, part in _PARTS.items():
                renamed[f"{ours}{part}.{kind}"] = state[f"{theirs}{theirs_part}.{kind}"]
            joined = state[f"{theirs}attn.in_proj_{kind}"].chunk(3)
            for name, tensor in zip("qkv", joined, strict=True):
                renamed[f"{ours}self_attn.{name}_proj.{kind}"] = tensor
    return renamed
