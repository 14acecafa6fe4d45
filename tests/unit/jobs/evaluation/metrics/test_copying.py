import torch

from jobs.corpus.render import render
from jobs.corpus.styles import sample_style
from jobs.evaluation.metrics.copying import copied, perceptual_hashes

LIMITS = {"max_hamming": 4, "max_colour": 0.05}


def drawn(content: str, style: int, variant: int = 0) -> torch.Tensor:
    image = render(content, sample_style(style, seed=7), variant=variant).image
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def test_a_noisy_copy_is_found():
    reference = drawn("house", 1)
    copy = (reference + 0.02 * torch.randn_like(reference)).clamp(0, 1)
    assert copied(copy, torch.cat([drawn("star", 1), reference]), **LIMITS) == [True]


def test_same_style_of_another_content_is_no_copy():
    references = torch.cat([drawn(name, 1) for name in ("star", "house", "fish", "cup")])
    assert copied(drawn("arrow", 1), references, **LIMITS) == [False]


def test_same_drawing_in_other_colours_is_no_copy():
    reference = drawn("house", 1)
    recoloured = reference[:, [2, 0, 1]] * 0.5
    assert copied(recoloured, reference, **LIMITS) == [False]


def test_hash_ignores_brightness():
    image = drawn("house", 2) * 0.8
    changed = perceptual_hashes(image) ^ perceptual_hashes(image + 0.05)
    assert changed.sum() <= 4
