"""Folders of ranks, and what killed processes left of them.

A folder says in its name whose it is (utils.files): whoever comes next, another call or
the process that hands out ranks, removes those whose owner has ended.
"""

import tempfile
from pathlib import Path

from utils import files

CALL, SHARED = "ranks", "gradients"  # a call's folder; memory that ranks share
MEMORY = Path("/dev/shm")  # a folder in memory, where there is one


def folder():
    "A folder for one call: -> tempfile.TemporaryDirectory. Sweeps first."
    sweep(tempfile.gettempdir())
    return files.temporary(CALL)


def sweep(folder):
    "Remove what dead processes left in `folder`, where temporary files are, and in memory."
    for kind, place in ((CALL, folder), (SHARED, folder), (SHARED, MEMORY)):
        files.sweep(place, files.named(kind))
