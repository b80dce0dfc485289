"""The error of a command line that is wrong by itself: exit code 2. The library's own checks raise it, too."""

from depthup.data.errors import UsageError

__all__ = ["UsageError"]
