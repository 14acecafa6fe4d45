"""Samplers: the steps from noise to data along a backbone's velocity."""

# B images, S steps

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

Noise = Callable[[], torch.Tensor]
_MAX_DEVIATIONS = 2.5  # of the noise that a flash step draws


class Sampler(ABC):
    """Takes one batch from noise to data. It may remember earlier steps: make one for each batch.

    Attributes:
        sigmas: (S,) noise levels at which the velocity is asked for, falling.
    """

    sigmas: torch.Tensor

    @abstractmethod
    def step(
        self, index: int, latents: torch.Tensor, velocity: torch.Tensor, noise: Noise
    ) -> torch.Tensor:
        """Return the latents (B, ...) of the next level.

        Args:
            index: Of the step.
            latents: (B, ...) at ``sigmas[index]``.
            velocity: (B, ...) there.
            noise: Draws standard normal noise (B, ...), for samplers that add some.
        """


class EulerSampler(Sampler):
    """Straight steps between levels (S + 1,)."""

    def __init__(self, sigmas: torch.Tensor) -> None:
        self.sigmas = sigmas[:-1]
        self._next = sigmas[1:]

    def step(
        self, index: int, latents: torch.Tensor, velocity: torch.Tensor, noise: Noise
    ) -> torch.Tensor:
        """Return ``latents`` moved along ``velocity``."""
        return latents + (self._next[index] - self.sigmas[index]) * velocity


class FlashSampler(Sampler):
    """Steps of a distilled model: to the predicted data, and back to the next level by new noise.

    Args:
        sigmas: (S + 1,) levels, the last one 0.
        noise_scale: Standard deviation of the noise at sigma 1.
    """

    def __init__(self, sigmas: torch.Tensor, noise_scale: float) -> None:
        self.sigmas = sigmas[:-1]
        self._next = sigmas[1:]
        self._noise_scale = noise_scale

    def step(
        self, index: int, latents: torch.Tensor, velocity: torch.Tensor, noise: Noise
    ) -> torch.Tensor:
        """Return the predicted data under noise of the next level, which is cut at its ends."""
        data = latents - self.sigmas[index] * velocity
        following = self._next[index]
        if following == 0:
            return data
        drawn = noise()
        spread = drawn.flatten(1).std(dim=1).view(-1, *[1] * (drawn.ndim - 1))
        drawn = drawn.clamp(-_MAX_DEVIATIONS * spread, _MAX_DEVIATIONS * spread)
        return (1 - following) * data + following * self._noise_scale * drawn


class UniPCSampler(Sampler):
    """Second order with a corrector (Zhao et al. 2023), by diffusers' scheduler.

    Args:
        scheduler: A new UniPCMultistepScheduler for flow prediction.
        num_inference_steps: S.
        device: Of the latents.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int, device: torch.device) -> None:
        scheduler.set_timesteps(num_inference_steps, device=device)
        scheduler.set_begin_index(0)  # not found by its timestep: of many steps, two are equal
        self._scheduler = scheduler
        # the model was trained on whole thousandths, as the scheduler's timesteps are
        self.sigmas = scheduler.timesteps.float() / scheduler.config.num_train_timesteps

    def step(
        self, index: int, latents: torch.Tensor, velocity: torch.Tensor, noise: Noise
    ) -> torch.Tensor:
        """Return the scheduler's next latents."""
        timestep = self._scheduler.timesteps[index]
        following: torch.Tensor = self._scheduler.step(
            velocity, timestep, latents, return_dict=False
        )[0]
        return following
