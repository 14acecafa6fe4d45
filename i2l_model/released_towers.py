"""The released image encoders by hub id: their sizes, without their weights."""

from collections.abc import Mapping

from i2l_model.tower_config import Dinov3Config, EncoderConfig

SIGLIP2_GIANT_384 = EncoderConfig(
    image_size=384,
    patch_size=16,
    hidden_size=1536,
    num_layers=40,
    num_heads=16,
    intermediate_size=6144,
)
DINOV3_7B = Dinov3Config(
    patch_size=16,
    hidden_size=4096,
    num_layers=40,
    num_heads=32,
    intermediate_size=8192,
    num_registers=4,
    gated_mlp=True,
    query_bias=False,
    key_bias=False,
    value_bias=False,
    hidden_act="silu",
)
RELEASED_ENCODERS: Mapping[str, EncoderConfig] = {
    "google/siglip2-giant-opt-patch16-384": SIGLIP2_GIANT_384,
}
RELEASED_DINOV3: Mapping[str, Dinov3Config] = {
    "facebook/dinov3-vit7b16-pretrain-lvd1689m": DINOV3_7B,
}
