"""Servers that do not answer for a while, told apart from input that has to be changed."""

from i2l_model.errors import InputError


class ServerAway(InputError):
    """A server cannot be reached: its address may be wrong, or it comes back by itself.

    At the start of a command the user is asked to look; in the middle of one, `patiently` waits.
    """
