"""What JupyterLab may write: work/ alone. The rest of the course is there to be read.

start.py names it as the server's contents manager, so that a reader reaches solved
chapters, the glossary and the README from the map without ever changing one.
"""

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

READ_ONLY = "This is for reading only: write in the folder work/."


class Contents(AsyncLargeFileManager):
    """The course's folder as JupyterLab sees it."""

    def _base_model(self, path):
        model = super()._base_model(path)
        return {**model, "writable": model["writable"] and in_work(path)}

    async def save(self, model, path=""):
        """Save a file of the reader's own."""
        refuse_outside(path)
        return await super().save(model, path)

    async def delete_file(self, path):
        """Delete a file of the reader's own."""
        refuse_outside(path)
        return await super().delete_file(path)

    async def rename_file(self, old_path, new_path):
        """Rename or move a file of the reader's own."""
        refuse_outside(old_path)
        refuse_outside(new_path)
        return await super().rename_file(old_path, new_path)


def in_work(path):
    """Whether a path below the course's folder is the reader's own."""
    return path.strip("/").split("/")[0] == "work"


def refuse_outside(path):
    """Raise where a path is not the reader's own to change."""
    if not in_work(path) or path.strip("/") == "work":
        raise HTTPError(403, READ_ONLY)
