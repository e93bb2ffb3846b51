"""utils/bench/recordings.py: a damaged recording is refused; those that ship are whole."""

import pytest

from utils.bench import recordings


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": 99}', '{"format": 1, "rows": [{"what": "launch"}]}']
)
def test_damaged_recording(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is no recording"):
        recordings.recordings(tmp_path)


def test_what_ships():
    found = recordings.recordings()
    assert found, "at least one recording ships"
    for name, data in found.items():
        there = {row["what"] for row in data["rows"]}
        assert set(recordings.FIRST) <= there <= set(recordings.KINDS), name
        assert set(recordings.absent(data)) == set(recordings.KINDS) - there
        assert data["command"].startswith("python3 start.py measure")
        assert data["date"] and not data["quick"]
        assert not {"/", "\\"} & set(data["machine"]["processor"].replace("(R)", ""))
