"""How a LoRA's references share the predictor's attention."""

# N LoRAs, K references

import torch

from i2l_model.errors import InputError


def reference_shares(
    ref_images: torch.Tensor,
    ref_mask: torch.Tensor | None,
    ref_weights: torch.Tensor | None,
    *,
    max_refs: int,
) -> torch.Tensor:
    """Return each reference's share (N, K) float32: 0 where it is absent, sum 1 in every row.

    Args:
        ref_images: (N, K, 3, H, W).
        ref_mask: (N, K) bool, False where a reference is absent; None means all are there.
        ref_weights: (N, K) relative weights; None weighs the present ones equally.
        max_refs: Largest K.

    Raises:
        InputError: If shapes disagree, a weight is negative or not finite, or a row is empty.
    """
    if ref_images.ndim != 5:
        shape = tuple(ref_images.shape)
        raise InputError("ref_images", shape, "must be (N, K, 3, H, W)", "stack the references")
    N, K = ref_images.shape[:2]
    if not 1 <= K <= max_refs:
        problem = f"must be 1 to {max_refs} references"
        raise InputError("ref_images", K, problem, "give fewer, or predict twice and fuse")
    shares = torch.ones(N, K, device=ref_images.device)
    for field, values in (("ref_mask", ref_mask), ("ref_weights", ref_weights)):
        if values is None:
            continue
        if values.shape != (N, K):
            raise InputError(field, tuple(values.shape), f"must be ({N}, {K})", "fix its shape")
        shares = shares * values.to(shares)
    if not (torch.isfinite(shares).all() and (shares >= 0).all()):
        raise InputError("ref_weights", shares.tolist(), "must be finite and >= 0", "change them")
    totals = shares.sum(dim=1, keepdim=True)
    if not (totals > 0).all():
        row = int((totals == 0).nonzero()[0, 0])
        raise InputError("ref_mask", f"row {row}", "has no reference", "give at least one a row")
    return shares / totals
