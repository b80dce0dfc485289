"""Packages that only some files need, imported when such a file comes."""

import importlib
from pathlib import Path
from types import ModuleType

from depthup.data.errors import InputError


def load_extra(path: str | Path, module: str, extra: str) -> ModuleType:
    """Import a package that an optional extra installs.

    Args:
        path: file that needs it, for the message.
        module: import name, such as `OpenEXR`.
        extra: name of the extra, such as `exr`.

    Returns:
        The module.

    Raises:
        InputError: the package is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        fault = "is not installed" if missing else f"cannot be imported ({' '.join(str(error).split())})"
        raise InputError(
            f'{path}: needs the package {module}, which {fault}; run: pip install "depthup[{extra}]"'
        ) from None
