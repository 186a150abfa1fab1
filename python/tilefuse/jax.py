"""The kernels as JAX functions: another name of `tilefuse.interop.jax`."""

from .interop.jax import *  # noqa: F403
from .interop.jax import __all__, __doc__  # noqa: F401
