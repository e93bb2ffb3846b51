"""One module a chapter: the drawing of its figures, where drawing is not the lesson.

Each function returns (figure, sentence) for `plots.show` or `plots.explore`.
"""
