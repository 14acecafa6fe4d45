import pytest
import torch

from i2l_model.heads import CompressedHeads, group_heads
from i2l_model.lora.factors import LoraTarget

TARGETS = (
    LoraTarget("a", 8, 8),
    LoraTarget("b", 8, 20),
    LoraTarget("c", 20, 8),
    LoraTarget("d", 8, 8),
)


def make_heads(rank: int = 4, queries: int = 1) -> CompressedHeads:
    torch.manual_seed(0)
    return CompressedHeads(TARGETS, dim=12, compress_dim=6, rank=rank, queries_per_factor=queries)


def randomise(heads: CompressedHeads) -> CompressedHeads:
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter)
    return heads


def test_layers_of_equal_shape_share_a_group():
    groups = {(group.side, group.features): group.names for group in group_heads(TARGETS)}
    assert groups == {
        ("A", 8): ("a", "b", "d"),
        ("A", 20): ("c",),
        ("B", 8): ("a", "c", "d"),
        ("B", 20): ("b",),
    }


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_shapes_and_order_of_the_layers(queries):
    heads = make_heads(queries=queries)
    assert heads.num_queries == 2 * len(TARGETS) * queries
    lora = heads.factors(heads(torch.randn(3, heads.num_queries, 12), 0.3))
    assert lora.targets == TARGETS
    assert (lora.num_loras, lora.rank) == (3, 4)


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_grouped_decoding_equals_one_small_linear_at_a_time(queries):
    heads = randomise(make_heads(queries=queries))
    outputs = torch.randn(3, heads.num_queries, 12)
    lora = heads.factors(heads(outputs, 0.5))
    start = 0
    for head in heads.groups:
        for layer, name in enumerate(head.group.names):
            rows = []
            for query in outputs[:, start : start + queries].unbind(1):
                row = query @ head.down[layer] @ head.up[layer]
                rows.append(row.view(3, 4 // queries, head.group.features))
            expected = torch.cat(rows, dim=1)
            if head.group.side == "A":
                found = lora.lora_A[name] * head.group.features**0.5
            else:
                found = lora.lora_B[name].mT / 0.5
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            start += queries


def test_untrained_heads_emit_zero_lora_b_and_unit_size_lora_a():
    heads = CompressedHeads(
        [LoraTarget("wide", 512, 64)], dim=256, compress_dim=64, rank=16, queries_per_factor=4
    )
    lora = heads.factors(heads(torch.randn(8, heads.num_queries, 256), 0.3))
    assert not lora.lora_B["wide"].any()
    projected = lora.lora_A["wide"] @ torch.randn(512, 100)
    assert projected.std().item() == pytest.approx(1, rel=0.15)


def test_scale_is_in_lora_b():
    heads = randomise(make_heads())
    outputs = torch.randn(2, heads.num_queries, 12)
    one, three = (heads.factors(heads(outputs, scale)) for scale in (1.0, 3.0))
    torch.testing.assert_close(three.lora_B["b"], 3 * one.lora_B["b"])
    assert torch.equal(three.lora_A["b"], one.lora_A["b"])
