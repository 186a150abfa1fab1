"""`python -m tilefuse` is the command `tilefuse`."""

import sys

from .cli import main

sys.exit(main())
