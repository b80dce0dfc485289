"""Entry points of `torch.hub`: `torch.hub.load("FOLDER", "upsampler", source="local")`, from a bare checkout, too."""

from pathlib import Path as _Path

import depthup as _depthup

dependencies = ["torch", "numpy", "scipy", "numba", "cv2", "h5py", "psutil", "safetensors"]

# arguments are not called `model`, because `torch.hub.load` has one of that name
_folder = _Path(_depthup.__path__[0])
if not (_folder / "kernels").is_dir():  # not installed: depthup.kernels and depthup.data lie beside depthup
    _depthup.__path__.append(str(_folder.parent))


def upsampler(name=None, device=None, precision="float32"):
    """Depth at the resolution of an RGB image: `upsampler()(rgb, depth)`.

    Args:
        name: a name in the box, a `.safetensors` file, or a baseline; without it the network for each pair's ratio.
        device: where networks run, e.g. `"cuda"`; without it the CPU.
        precision: `float32` or `bf16`, as of `Upsampler`.

    Returns:
        A `depthup.upsampling.Upsampler`.

    Raises:
        InputError: no such model or precision.
    """
    from depthup.upsampling import Upsampler

    return Upsampler(name, device, precision)


def ddfupnet(name="x4"):
    """A trained network, for normalised tensors: see `depthup.models.DDFUpNet.forward`.

    Args:
        name: a name in the box, or a `.safetensors` file.

    Returns:
        A `depthup.DDFUpNet` in evaluation mode on the CPU.

    Raises:
        InputError: no such model.
    """
    from depthup.weights import load_model

    return load_model(name)
