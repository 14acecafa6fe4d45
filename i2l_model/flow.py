"""Flow matching: the straight path between data and noise, and the loss on its velocity.

The project's convention, which every backbone adapter translates into:

    latents = (1 - sigma) * data + sigma * noise,    sigma in [0, 1], 1 = pure noise
    velocity = d latents / d sigma = noise - data
"""

# B batch, ... any latent axes

import torch


def add_noise(data: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Return the latents at the noise levels ``sigmas``.

    Args:
        data: (B, ...) clean latents.
        noise: (B, ...) noise of the backbone's own scale.
        sigmas: (B,) in [0, 1].
    """
    sigmas = sigmas.to(data).view(-1, *[1] * (data.ndim - 1))
    return (1 - sigmas) * data + sigmas * noise


def velocity_target(data: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the velocity that a backbone has to predict, (B, ...)."""
    return noise - data


def flow_loss(
    velocity: torch.Tensor,
    data: torch.Tensor,
    noise: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean squared velocity error of each sample, (B,) float32.

    Args:
        velocity: (B, ...) predicted velocity, any floating dtype.
        data: (B, ...) clean latents.
        noise: (B, ...) the noise that was added.
        weights: (B,) a factor for each sample, or None for one.
    """
    error = velocity.float() - velocity_target(data, noise).float()
    loss = error.square().flatten(1).mean(dim=1)
    return loss if weights is None else loss * weights.to(loss)
