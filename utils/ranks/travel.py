"""What travels: a function from the notebook to its ranks, their results back."""

import inspect
import io
import pickle
import types

import cloudpickle


class _There(cloudpickle.Pickler):
    "Carries what a cell defined by value, and notes the classes among it."

    def __init__(self, file):
        super().__init__(file)
        self.classes = []

    def reducer_override(self, obj):
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and reduced is not NotImplemented:
            self.classes.append(obj)
        return reduced


class _Back(cloudpickle.Pickler):
    "Carries a result; a class that came from the notebook goes home as its number."

    def __init__(self, file, classes):
        super().__init__(file)
        self.number = {id(c): i for i, c in enumerate(classes)}

    def persistent_id(self, obj):
        return self.number.get(id(obj)) if isinstance(obj, type) else None


class _Home(pickle.Unpickler):
    "Reads a result: a class of the notebook is that very class, not a copy."

    def __init__(self, file, classes):
        super().__init__(file)
        self.classes = classes

    def persistent_load(self, number):
        return self.classes[number]


def pack(fn):
    "fn -> its bytes, and the notebook's classes among them; TypeError if it can't."
    file = io.BytesIO()
    pickler = _There(file)
    try:
        pickler.dump(
            (fn, pickler.classes)
        )  # the list is full by the time it is reached
    except Exception as error:
        where = " -> ".join(culprit(fn))
        reached = f" It is reached through: {where}." if where else ""
        raise TypeError(
            f"the function cannot travel to another process: {error}.{reached} "
            "Make such things inside the function, or hand over plain data."
        ) from None
    return file.getvalue(), pickler.classes


def unpack(blob):
    "The bytes of `pack` -> fn and its classes, in a rank."
    return pickle.loads(blob)


def send_home(value, classes, path):
    "Write a rank's result into a file."
    with open(path, "wb") as file:
        _Back(file, classes).dump(value)


def receive(path, classes):
    "Read a rank's result in the notebook."
    with open(path, "rb") as file:
        return _Home(file, classes).load()


def culprit(value, depth=5):
    "The chain of names from a function to the thing that cannot be pickled, or ()."
    if depth == 0 or not isinstance(value, types.FunctionType):
        return ()
    try:
        names = inspect.getclosurevars(value)
    except (TypeError, ValueError):
        return ()
    for name, reached in {**names.globals, **names.nonlocals}.items():
        try:
            cloudpickle.dumps(reached)
        except Exception:
            return (name, *culprit(reached, depth - 1))
    return ()
