"""What nbgrader runs of ours when it grades: cells mended first, then judged from outside.

Needs nbgrader; its configuration (grading.py) names these steps.
"""

import nbformat
from nbgrader.api import Gradebook
from nbgrader.converters.autograde import Autograde
from nbgrader.preprocessors import Execute, NbGraderPreprocessor

from utils.course import grading, judge, judge_fence


def handed_out(resources):
    "{grade_id: (metadata, source)} of an assignment, as nbgrader keeps it."
    where = resources["nbgrader"]
    with Gradebook(where["db_url"]) as gradebook:
        notebook = gradebook.find_notebook(where["notebook"], where["assignment"])
        tests = {cell.name: cell.max_score for cell in notebook.grade_cells}
        tasks = {cell.name: cell.max_score for cell in notebook.task_cells}
        solutions = {cell.name for cell in notebook.solution_cells}
        found = {}
        for cell in notebook.source_cells:
            words = grading.metadata(
                cell.name, cell_type=cell.cell_type, locked=bool(cell.locked),
                grade=cell.name in tests, task=cell.name in tasks,
                solution=cell.name in solutions,
            )  # fmt: skip
            if cell.name in {**tests, **tasks}:
                words["points"] = {**tests, **tasks}[cell.name]
            found[cell.name] = words, cell.source
        return found


class Mend(NbGraderPreprocessor):
    "What Jupyter's menus did to the cells must not stop nbgrader."

    def preprocess(self, notebook, resources):
        cells = judge.mend(notebook.cells, handed_out(resources))
        notebook.cells = [nbformat.from_dict(cell) for cell in cells]
        return notebook, resources


class Judge(NbGraderPreprocessor):
    "Instead of running the notebook: the verdicts, as the outputs of the tests."

    def preprocess(self, notebook, resources):
        if not judge_fence.version():
            self.log.warning("No Landlock here: what answers write cannot be confined.")
        slug = resources["nbgrader"]["notebook"]
        verdicts = judge.judge(notebook.cells, slug, self._tell)
        judge.write(notebook.cells, verdicts)
        notebook.cells = [nbformat.from_dict(cell) for cell in notebook.cells]
        return notebook, resources

    def _tell(self, name, verdict):
        self.log.info("%s: %s", name, verdict.word)


def sanitize():
    "nbgrader's steps before it grades, and ours before them."
    return [Mend, *Autograde().sanitize_preprocessors]


def autograde():
    "nbgrader's steps when it grades, with ours instead of the one that runs a notebook."
    steps = Autograde().autograde_preprocessors
    return [Judge if step is Execute else step for step in steps]
