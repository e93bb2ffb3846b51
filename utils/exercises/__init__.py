"What stands behind ex.NAME.check: cases, slips, verdicts, hints, progress."

from utils.exercises.cases import Miss, same
from utils.exercises.exercise import Chapter

__all__ = ["Chapter", "Miss", "same"]
