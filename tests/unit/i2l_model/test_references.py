import pytest
import torch

from i2l_model.errors import InputError
from i2l_model.references import reference_shares

IMAGES = torch.zeros(2, 3, 3, 4, 4)


def shares(mask=None, weights=None) -> list[list[float]]:
    mask = None if mask is None else torch.tensor(mask)
    weights = None if weights is None else torch.tensor(weights)
    return reference_shares(IMAGES, mask, weights, max_refs=3).tolist()


def test_present_references_share_by_weight():
    assert shares()[0] == pytest.approx([1 / 3] * 3)
    assert shares(mask=[[True, True, False], [False, True, False]]) == [[0.5, 0.5, 0], [0, 1, 0]]
    found = shares(
        mask=[[True, True, False], [True] * 3], weights=[[3.0, 1.0, 9.0], [0.0, 0.0, 2.0]]
    )
    assert found == [[0.75, 0.25, 0], [0, 0, 1]]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(InputError, match=r"ref_weights .* must be finite and >= 0"):
        shares(weights=[[1.0, 1.0, 1.0], [1.0, weight, 1.0]])


def test_a_row_without_references_is_refused():
    with pytest.raises(InputError, match=r"ref_mask \(row 1\) has no reference"):
        shares(mask=[[True] * 3, [False] * 3])
    with pytest.raises(InputError, match=r"ref_mask \(row 0\) has no reference"):
        shares(weights=[[0.0] * 3, [1.0] * 3])


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"must be \(2, 3\)"):
        shares(mask=[[True, True]])
    with pytest.raises(InputError, match=r"must be \(N, K, 3, H, W\)"):
        reference_shares(IMAGES[0], None, None, max_refs=3)
    with pytest.raises(InputError, match="must be 1 to 2 references"):
        reference_shares(IMAGES, None, None, max_refs=2)
    with pytest.raises(InputError, match="must be 1 to 2 references"):
        reference_shares(IMAGES[:, :0], None, None, max_refs=2)
