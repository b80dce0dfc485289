"""The error of a command whose options do not go together."""

from depthup.data import InputError


class UsageError(InputError):
    """The command's options contradict each other."""
