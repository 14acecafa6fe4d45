import pytest
import torch

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.evaluation.metrics.patches import reference_distances, set_quantiles


def drawn(content: str, style: int, variant: int = 0) -> torch.Tensor:
    image = render(content, sample_style(style, seed=7), variant=variant).image
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def test_a_reference_is_at_no_distance_to_itself():
    image = drawn("star", 1)[None]
    assert reference_distances(image, set_quantiles(image)) == [0.0]


def test_right_style_of_another_content_is_nearer_than_a_wrong_style():
    for style in range(6):
        pictures = [drawn(name, style, 1) for name in ("house", "fish", "moon")]
        references = set_quantiles(torch.stack(pictures))
        samples = torch.stack([drawn("cup", style), drawn("cup", style + 50)])
        right, wrong = reference_distances(samples, references)
        assert right < wrong


def test_distance_rises_with_a_tint():
    references = set_quantiles(torch.stack([drawn("house", 1), drawn("fish", 1)]))
    tints = torch.stack([(drawn("cup", 1) * (1 - s)).clamp(0, 1) for s in (0.1, 0.3, 0.6)])
    values = reference_distances(tints, references)
    assert values == sorted(values)


def test_batch_equals_one_at_a_time():
    references = set_quantiles(drawn("house", 1)[None])
    samples = torch.stack([drawn("cup", 2), drawn("star", 3)])
    batched = reference_distances(samples, references)
    single = [reference_distances(sample[None], references)[0] for sample in samples]
    assert batched == pytest.approx(single)
