"""`tilefuse.interop.torch` by a shorter name."""

from tilefuse.interop.torch import *  # noqa: F403
from tilefuse.interop.torch import __all__, __doc__  # noqa: F401
