"""The DDF operation and nothing else: `ddf`, `ddf_up`, and the choice between their backends."""

from depthup.kernels.backend import BACKENDS, BackendError, choose_backend, use_backend, why_not
from depthup.kernels.operation import ddf, ddf_up

__all__ = ["BACKENDS", "BackendError", "choose_backend", "ddf", "ddf_up", "use_backend", "why_not"]
