"""Folders that Jupyter, IPython and matplotlib want in the reader's home.

Where the home cannot be written (a read-only image, a user without a home) they get a
folder of the course's own. Standard library only, and an old Python must load it.
"""

import atexit
import os
import shutil
import sys
import tempfile

OURS = "COURSE_HOME"  # in the environment: the folder that stands in for the home


def wanted(env):
    """{variable: the folders that are used where it is not set}."""
    home = os.path.expanduser("~")
    config = env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    cache = env.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    data = os.path.join(
        env.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"), "jupyter"
    )
    plots = [os.path.join(config, "matplotlib"), os.path.join(cache, "matplotlib")]
    if sys.platform == "darwin":
        data = os.path.join(home, "Library", "Jupyter")
    elif os.name == "nt":
        data = os.path.join(env.get("APPDATA") or home, "jupyter")
    if sys.platform == "darwin" or os.name == "nt":
        plots = [os.path.join(home, ".matplotlib")]
    data = env.get("JUPYTER_DATA_DIR") or data
    return {
        "JUPYTER_CONFIG_DIR": [os.path.join(home, ".jupyter")],
        "JUPYTER_DATA_DIR": [data],
        "JUPYTER_RUNTIME_DIR": [os.path.join(data, "runtime")],
        "IPYTHONDIR": [os.path.join(home, ".ipython")],
        "MPLCONFIGDIR": plots,
    }


def writable(folder):
    """Whether a file can be made in a folder, or the folder itself where it lacks."""
    folder = os.path.abspath(folder)
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    trial = os.path.join(folder, f".course-{os.getpid()}")
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.remove(trial)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def lost(env):
    """The variables that are not set and whose folder cannot be written."""
    return [
        name
        for name, folders in wanted(env).items()
        if not env.get(name) and not all(writable(folder) for folder in folders)
    ]


def our_folder(root):
    """A folder that stands in for the home: in .venv, in work/, else a temporary one."""
    for place in (root / ".venv", root / "work"):
        if place.is_dir() and writable(str(place / ".home")):
            return str(place / ".home")
    folder = tempfile.mkdtemp(prefix="course-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def stand_in(env, root):
    """Give an environment folders of the course's own for those that are lost."""
    names = lost(env)
    if not names:
        return
    try:
        ours = env.get(OURS) or our_folder(root)
        made = {name: os.path.join(ours, name.lower()) for name in names}
        os.makedirs(ours, mode=0o700, exist_ok=True)
        for folder in made.values():
            os.makedirs(folder, exist_ok=True)
    except OSError:
        return  # nothing can be written anywhere: whoever needs it says so
    env.update(made)
    env[OURS] = ours
