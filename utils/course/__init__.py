"What makes notebooks a course: writing, deriving, checking, grading, the reader's folder."
