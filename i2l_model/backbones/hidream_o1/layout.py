"""The sequence: text padded on the left, its last slot for the time, then the image's patches.

Text attends to the text before it; the time slot and the patches attend to everything.
"""

# B batch, T text slots with the time slot last, N patches, S = T + N

import torch

IMAGE_POSITION = 4096
"""Where the image begins on all axes, however long the text is."""


def attention_mask(num_ids: torch.Tensor, num_slots: int, num_patches: int) -> torch.Tensor:
    """Return who attends to whom, (B, 1, S, S) bool, rows being the queries.

    Padding is attended by nobody; a padded slot attends to itself, since no row may be empty.

    Args:
        num_ids: (B,) slots of each row that hold a token.
        num_slots: T.
        num_patches: N.
    """
    size = num_slots + num_patches
    place = torch.arange(size, device=num_ids.device)
    is_text = place < num_slots - 1
    allowed = (place[None, :] <= place[:, None]) | ~is_text[:, None]
    is_token = place[None, :] >= num_slots - num_ids[:, None]
    own = torch.eye(size, dtype=torch.bool, device=num_ids.device)
    return ((allowed & is_token[:, None, :]) | own)[:, None]


def position_ids(num_ids: torch.Tensor, num_slots: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return positions (3, B, S) in time, row and column; text counts on all three alike.

    Args:
        num_ids: (B,) slots of each row that hold a token.
        num_slots: T.
        grid: Rows and columns of patches.
    """
    slots = torch.arange(num_slots, device=num_ids.device)
    text = (slots - (num_slots - num_ids[:, None])).clamp(min=0)  # the place of padding is moot
    row, column = torch.cartesian_prod(*(torch.arange(n, device=num_ids.device) for n in grid)).mT
    image = IMAGE_POSITION + torch.stack([torch.zeros_like(row), row, column])
    batch = len(num_ids)
    return torch.cat([text.expand(3, -1, -1), image[:, None].expand(-1, batch, -1)], dim=2)
