"""The book: the solved chapters as pages that need no kernel, no network, no Python.

`author book` builds it (build.py); `author run` draws its labs ahead (frames.py).
"""
