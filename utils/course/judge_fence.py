"""A fence round this process: from here on it writes into the named folders only.

Linux's Landlock asks for no rights of an administrator and holds for every process that
this one starts. Where the kernel has none (before 5.13, or another system), `confine`
changes nothing and says so.
"""

import contextlib
import ctypes
import os
import sys

CREATE, ADD, ENTER = 444, 445, 446  # system calls, the same on every processor
WRITING = sum(1 << bit for bit in (1, 4, 5, *range(6, 13)))  # write, remove, make
MOVING, CUTTING = 1 << 13, 1 << 14  # known to the second and to the third version
SIGNALS = 2  # no signals to processes outside: the sixth version


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "net", "scope")]


class _Beneath(ctypes.Structure):
    _pack_, _layout_ = 1, "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version():
    "The version of Landlock that this kernel has; 0: none."
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _kernel().syscall(CREATE, None, ctypes.c_size_t(0), 1))


def confine(folders):
    "Let this process and its children write below `folders` only; -> does it hold?"
    known = version()
    if not known:
        return False
    kernel, moving = _kernel(), MOVING * (known >= 2)
    files = WRITING | moving | CUTTING * (known >= 3)
    rules = _Ruleset(files, 0, SIGNALS * (known >= 6))
    size = ctypes.c_size_t(24 if known >= 6 else 8)
    handle = _done(kernel.syscall(CREATE, ctypes.byref(rules), size, 0))
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = ctypes.byref(_Beneath(files, place))
            _done(kernel.syscall(ADD, handle, 1, rule, 0))
            os.close(place)
    _done(kernel.prctl(38, 1, 0, 0, 0))  # no new privileges, which ENTER asks for
    _done(kernel.syscall(ENTER, handle, 0))
    os.close(handle)
    return True


def _kernel():
    return ctypes.CDLL(None, use_errno=True)


def _done(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "the fence of the judge's process")
    return result
