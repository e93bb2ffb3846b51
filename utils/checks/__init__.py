"""One module a chapter: its exercises, each a test that an answer must pass."""
