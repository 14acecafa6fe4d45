"""What Ray Train calls in every worker.

The driver and Ray's controller import this file too, so that backbones and DeepSpeed, which take
seconds to import, are left to the workers.
"""

from typing import Any


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had no finite gradient, or a loss far above those before."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train one rank from the newest checkpoint to the last step.

    Args:
        settings: A `TrainingJob` as JSON-ready values.
    """
    from jobs.training.worker import train

    train(settings)
