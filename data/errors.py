"""What a user's bad file or wrong question raises."""

from collections.abc import Iterable


class InputError(ValueError):
    """A user's file or folder cannot be used: one line that names it, what was found and what was expected."""


class UsageError(InputError):
    """What was asked for cannot be, whatever the files hold: names that are not known, options that contradict."""


def listed(names: Iterable[str]) -> str:
    """Names found in a file, for a message: on one line whatever they hold."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names)
