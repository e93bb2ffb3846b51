"""Files that are whole at every moment: the old one, then the new one, never a half.

And names that say whose they are: what a killed process left behind, the next one sweeps
away. Standard library only: start.py's side of the course uses this before packages are
there.
"""

import errno
import itertools
import os
import platform
import re
import shutil
import sys
import tempfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the course's folder
_numbers = itertools.count(1)


@contextmanager
def whole(path, lasting=True):
    """`with whole(path) as file:` binary file that becomes `path` when the block ends.

    Nothing changes when the block raises. lasting: the bytes are on the disk before the
    name is, so that a power cut leaves a whole file, too. A process that is killed inside
    leaves a file .NAME.OWNER.part; the next writer into that folder removes it.
    """
    path = Path(path)
    sweep(path.parent, PART)
    part = path.with_name(f".{path.name}.{owner()}.{next(_numbers)}.part")
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


def try_lock(file):
    "Take the lock of an open file until it closes; False when another process holds it."
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


# ---- whose is it, and does its owner live? ----

EXITING = 4  # PF_EXITING in Linux's include/linux/sched.h
OWNER = r"(?P<pid>\d+)-(?P<start>\d+)-(?P<place>[0-9a-f]{8})"
PART = re.compile(r"\..+\." + OWNER + r"\.\d+\.part")


def temporary(kind, folder=None):
    """A temporary folder KIND-OWNER-..., in `folder` or where such folders usually lie.

    -> tempfile.TemporaryDirectory. What dead processes left of the same kind in the same
    place is swept away first.
    """
    folder = folder or tempfile.gettempdir()
    sweep(folder, named(kind))
    return tempfile.TemporaryDirectory(
        prefix=f"{kind}-{owner()}-", dir=folder, ignore_cleanup_errors=True
    )


def named(kind):
    "What the folders of `temporary` are called: a pattern for `sweep`."
    return re.compile(re.escape(kind) + "-" + OWNER + r"-.*")


def sweep(folder, pattern):
    """Remove what processes that have ended left in `folder`; what lives is not touched.

    pattern: matches whole names, with the groups of OWNER in it. Another user's things,
    and those of another machine that shares this folder, are left alone.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = pattern.fullmatch(entry.name)
            if found and not lives(**found.groupdict()) and _is_mine(entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)


def owner():
    "This process in a name, PID-START-PLACE: a number that is used again starts later."
    return f"{os.getpid()}-{born(os.getpid()) or 0}-{_place()}"


def lives(pid, start, place):
    "Is this owner a running process? Also True where that cannot be known."
    if place != _place() or start == "0":
        return True
    now = born(int(pid))
    return now == 0 or now == int(start)


def born(pid):
    "When this process started, in the system's own units; None: it has ended; 0: unknown."
    if os.path.exists("/proc/self/stat"):  # Linux: ticks since the machine started
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            return 0
        # Who exits closes its pipes first, and only then is a zombie.
        ended = fields[0] in (b"Z", b"X") or int(fields[6]) & EXITING
        return None if ended else int(fields[19])
    try:
        import psutil
    except ImportError:
        return 0
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except (psutil.Error, OSError):
        return 0


def _place():
    "This machine (or container, which counts its processes from 1) in eight digits."
    try:
        counted = os.readlink("/proc/self/ns/pid")
    except OSError:
        counted = sys.platform
    return f"{zlib.crc32(f'{platform.node()} {counted}'.encode(errors='replace')):08x}"


def _is_mine(entry):
    if not hasattr(os, "getuid"):
        return True
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    return False
