"""What workers find out each for itself, and then together: that the input does not allow to go on.

Ray Train starts workers that raise again, as often as ``max_failures`` says. An error that would
come back is therefore raised by all of them alike, see `jobs.training.entry`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from i2l_model.errors import InputError
from jobs.away import ServerAway


class AgreedInputError(InputError):
    """An input error that all workers raise, whichever of them met it."""


@contextmanager
def agreed_input() -> Iterator[None]:
    """Raise an input error of any worker on all of them; all enter the block together.

    The block has no collectives, which the others would wait in. A server that is away is no
    input error: it may answer when the worker is started again.

    Raises:
        AgreedInputError: The first worker's of those that met one.
    """
    met: InputError | None = None
    try:
        yield
    except ServerAway:
        raise
    except InputError as error:
        met = error
    errors: list[InputError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, met)
    first = next((error for error in errors if error is not None), None)
    if first is not None:
        raise AgreedInputError(first.field, first.value, first.problem, first.fix) from met
