"""Files that are whole at every moment: the old one, then the new one, never a half.

Standard library only: start.py's side of the course uses it before packages are there.
"""

import os
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the course's folder


@contextmanager
def whole(path, lasting=True):
    """`with whole(path) as file:` binary file that becomes `path` when the block ends.

    Nothing changes when the block raises. lasting: the bytes are on the disk before the
    name is, so that a power cut leaves a whole file, too.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path, content, lasting=True):
    "Write bytes or text (UTF-8) at one stroke: all of it or nothing."
    with whole(path, lasting) as file:
        file.write(content.encode() if isinstance(content, str) else content)
