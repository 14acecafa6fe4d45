"""What Ray Train calls in every worker.

The driver and Ray's controller import this file too, so that backbones and DeepSpeed, which take
seconds to import, are left to the workers.
"""

from typing import Any


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had no finite gradient, or a loss far above those before."""


def train_worker(settings: dict[str, Any]) -> Exception | None:
    """Train one rank from the newest checkpoint to the last step.

    Args:
        settings: A `TrainingJob` as JSON-ready values.

    Returns:
        What ended all ranks alike and would again: a `TrainingDiverged`, or an input error while
        the training was set up. Raised, it would have Ray Train start the workers again.
    """
    from jobs.training.worker import train

    return train(settings)
