"""Shared code of the course: plumbing, what earlier chapters built, checks and data.

Standard library only, so that `start.py` can import `utils.course.work` before any package
is installed.
"""

import os
import sys

if "torch" not in sys.modules:  # spinning threads are slow on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
