"""What every test starts from: no progress of the author's is read or written."""

import gc
import re
import signal
from types import SimpleNamespace

import pytest

from tests.stand_in import course  # noqa: F401  a fixture of several files

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit it:
# the tests that interrupt a child would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files of which one alone takes a minute or more begin first: a worker that gets one of
# them last keeps the others waiting.
SLOW = (
    "book ranks ranks_field exercises browser data_parallel other_types grading".split()
)


def pytest_collection_modifyitems(items):
    first = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: first.get(item.path.stem, len(SLOW)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()  # making items makes no garbage
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    "A file's tests go to one worker, those of all checks and slips a chapter at a time."
    from xdist.scheduler import LoadFileScheduling

    if config.option.dist != "loadfile":
        return None

    class ByFileAndChapter(LoadFileScheduling):
        def _split_scope(self, nodeid):
            of_chapter = re.match(r".*test_exercises\.py::\w+\[\d\d", nodeid)
            return of_chapter[0][-2:] if of_chapter else super()._split_scope(nodeid)

    return ByFileAndChapter(config, log)


@pytest.fixture(scope="module", autouse=True)
def old_objects_are_not_walked_again():
    """What a file finds in memory is no garbage: the collector leaves it alone.

    A worker that has loaded the course holds a million objects, and walking over all of
    them anew took a fifth of its time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def progress_is_off(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")


class Shown(list):
    "What was displayed: [(bundle, metadata)], and the handle of each that can change."

    def __call__(self, data, metadata=None, raw=False, display_id=None):
        if not raw:
            data = {"text/markdown": data.data}
        self.append((data, metadata))
        return Handle(self, len(self) - 1) if display_id else None

    def of(self, kind):
        "The values of one kind, such as text/plain, in order."
        return [data[kind] for data, _ in self if kind in data]


class Handle:
    "Stands in for IPython's display handle: an update replaces what was shown."

    def __init__(self, shown, place):
        self.shown, self.place = shown, place

    def update(self, data, metadata=None, raw=False):
        if not raw:
            data = {"text/markdown": data.data}
        self.shown[self.place] = data, metadata


@pytest.fixture
def shown(monkeypatch):
    "Everything displayed, as in a notebook without widgets."
    seen = Shown()
    events = SimpleNamespace(register=lambda *_: None)  # which matplotlib asks for
    shell = SimpleNamespace(events=events)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", seen)
    monkeypatch.setattr("utils.plots.display", seen)
    return seen
