"""The course's code beside the usual libraries: one module a chapter, run by utils.bench.

Every module is imported by `python3 start.py bench`; its functions under `@benchmark`
return a `Ratio`. A module must import quickly: libraries that it compares with are
imported inside its functions.
"""
