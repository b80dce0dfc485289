"""The error that a user's bad file raises."""


class InputError(ValueError):
    """A user's file or folder cannot be used: one line that names it, what was found and what was expected."""
