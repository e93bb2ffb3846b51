"""Is a lab still the one that was drawn? A fingerprint of its code and its data."""

import contextlib
import hashlib
import inspect
import pickle
import re
import sys
import types
from pathlib import Path

ADDRESS = re.compile(" at 0x[0-9a-f]+")


def fingerprint(draw, *more):
    "A hash of what a lab draws: its code, all code of utils/ behind it, and its data."
    digest, seen = hashlib.sha256(), set()
    digest.update(repr(more).encode())
    _feed(digest, draw, seen)
    return digest.hexdigest()[:16]


def _feed(digest, value, seen):
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, types.ModuleType):
        if value.__name__.split(".")[0] == "utils" and value.__file__:
            digest.update(Path(value.__file__).read_bytes())
            for part in vars(value).values():
                if isinstance(part, types.ModuleType) or hasattr(part, "__module__"):
                    _feed(digest, part, seen)
    elif isinstance(value, types.FunctionType):
        _feed_function(digest, value, seen)
    elif isinstance(value, type):
        _feed(digest, sys.modules.get(value.__module__), seen)
    elif isinstance(value, dict):
        for key, part in value.items():
            digest.update(repr(key).encode())
            _feed(digest, part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _feed(digest, part, seen)
    elif not hasattr(value, "__module__") or hasattr(value, "dtype"):
        digest.update(_bytes(value))
    else:
        digest.update(type(value).__name__.encode())
        _feed(digest, getattr(value, "__dict__", None), seen)


def _feed_function(digest, function, seen):
    module = sys.modules.get(function.__module__)
    code = inspect.unwrap(function).__code__
    if function.__module__ == "__main__":  # written in a cell: what it names is data
        digest.update(code.co_code + ADDRESS.sub("", repr(code.co_consts)).encode())
        for name in code.co_names:
            _feed(digest, function.__globals__.get(name), seen)
    elif function.__module__ and function.__module__.split(".")[0] == "utils":
        _feed(digest, module, seen)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            _feed(digest, cell.cell_contents, seen)
    _feed(digest, function.__defaults__, seen)


def _bytes(value):
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a file has only the first
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes"):
        return value.tobytes()
    try:
        return pickle.dumps(value)
    except Exception:
        return type(value).__name__.encode()
