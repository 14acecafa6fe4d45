"""Style distance to the oracle image, by part.

The oracle shows the prompt's content in the held-out style, so a sample that took over the
style differs from it only by how the figure was drawn. One number for the whole picture hides
which part is missing; the parts are

background, figure   distance of Lab means and spreads inside the eroded region
outline              the same on the line, the best of shifts by up to one pixel
texture              log filter-bank energies of luminance, see `texture.py`
overall              Lab distance of the pictures pooled to 8x8 cells

Each is a distance: 0 for the oracle itself.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.evaluation.metrics.colour import LAB_RANGE, moment_distance, rgb_to_lab
from jobs.evaluation.metrics.regions import Regions, find_regions
from jobs.evaluation.metrics.texture import texture_distance

PARTS = ("background", "figure", "outline", "texture", "overall")
POOLED_CELLS = 8
PartValues = dict[str, list[float | None]]


def part_distances(
    samples_BCHW: Tensor, oracles_BCHW: Tensor, figure_BHW: Tensor, outline_BHW: Tensor
) -> PartValues:
    """Distances of samples (B,3,H,W in [0,1]) to their oracles, one list of B values a part.

    None stands for a part that the oracle does not have.
    """
    if samples_BCHW.shape != oracles_BCHW.shape:
        raise ValueError(
            f"samples {tuple(samples_BCHW.shape)} must have the shape of the oracles "
            f"{tuple(oracles_BCHW.shape)}; render the oracles at the sample's size"
        )
    samples, oracles = rgb_to_lab(samples_BCHW), rgb_to_lab(oracles_BCHW)
    regions = find_regions(figure_BHW, outline_BHW)
    return {
        "background": _where_present(
            moment_distance(samples, oracles, regions.background), regions, "background"
        ),
        "figure": _where_present(
            moment_distance(samples, oracles, regions.figure), regions, "figure"
        ),
        "outline": _where_present(
            _outline_distance(samples, oracles, regions.outline), regions, "outline"
        ),
        "texture": texture_distance(samples[:, 0], oracles[:, 0], regions),
        "overall": _pooled_distance(samples, oracles).tolist(),
    }


def _where_present(distance_B: Tensor, regions: Regions, name: str) -> list[float | None]:
    values: list[float] = distance_B.tolist()
    return [
        value if there else None for value, there in zip(values, regions.present(name), strict=True)
    ]


def _outline_distance(samples: Tensor, oracles: Tensor, outline: Tensor) -> Tensor:
    """A line one pixel off is the same line: the least distance over nine shifts."""
    height, width = samples.shape[2:]
    padded = F.pad(samples, (1, 1, 1, 1), mode="replicate")
    shifts = [
        moment_distance(padded[:, :, y : y + height, x : x + width], oracles, outline)
        for y in range(3)
        for x in range(3)
    ]
    # amin hands NaN on, so a broken sample stays visible.
    return torch.stack(shifts).amin(0)


def _pooled_distance(samples: Tensor, oracles: Tensor) -> Tensor:
    left = F.adaptive_avg_pool2d(samples, POOLED_CELLS)
    right = F.adaptive_avg_pool2d(oracles, POOLED_CELLS)
    return (left - right).square().sum(1).sqrt().mean((1, 2)) / LAB_RANGE
