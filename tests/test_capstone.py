"""Chapter 29: the planner against counts, and a folder that stands on its own."""

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from utils.built import gpt, muon, plan, release, say
from utils.data import seventy

CHARS = "".join(chr(65 + i) for i in range(27))


def capstone_model(**options):
    "A GPT with weights that differ, 27 tokens, width 24 and two layers."
    torch.manual_seed(3)
    model = gpt.GPT(27, 16, 2, 3, 24, **options)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    release.write_folder(tmp_path / "model", capstone_model(), CHARS, 4, 8, "# a card")
    return tmp_path / "model"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_folder_is_read_back_as_it_was_compressed(tmp_path, bits):
    model = capstone_model()
    size = release.write_folder(tmp_path, model, CHARS, bits, 8, "# a card")
    assert {path.name for path in tmp_path.iterdir()} == set(release.FILES)
    back, chars = release.read_folder(tmp_path)
    assert chars == CHARS
    ids = torch.randint(27, (2, 9))
    gap = (back(ids) - model(ids)).abs().mean()
    assert 0 < gap < (1.5 if bits == 4 else 0.1)
    path = tmp_path / "model.safetensors"
    told = plan.file_bytes(plan.matrices(plan.Shape(27, 24, 2, 3, 3, 96)), bits, 8)
    assert release.held_bytes(path) == told == size - release.header_bytes(path)


def test_the_script_writes_what_the_model_writes(folder):
    back, _ = release.read_folder(folder)
    ids = torch.randint(27, (1, 11))
    config, _, weights = say.read(folder)
    assert torch.allclose(back(ids)[0], say.logits(ids[0], config, weights), atol=1e-4)
    ours = gpt.generate(back, torch.tensor([[1, 2]]), 9, temperature=0)[0]
    assert say.say(folder, "BC", 9) == "".join(CHARS[i] for i in ours)


def test_a_stranger_runs_it_without_the_course(folder):
    command = [sys.executable, "-I", "say.py", "ABC", "--count", "5"]
    said = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0 and said.stdout.startswith("ABC")
    assert said.stdout == say.say(folder, "ABC", 5) + "\n"
    command[3] = "abc"  # no such characters
    said = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 2
    assert said.stderr == "say.py: the model knows no ['a', 'b', 'c']\n"


@pytest.mark.parametrize(
    ("arguments", "lost", "words"),
    [
        ([], None, "arguments are required: prompt"),
        ([""], None, "the prompt is empty"),
        (["A", "--count", "x"], None, "--count: invalid int value: 'x'"),
        (["A", "--count", "-3"], None, "count is a number of characters to write"),
        (["A", "--temperature", "nan"], None, "temperature is 0 or at least 0.001"),
        (["A"], "model.safetensors", "this folder lacks model.safetensors"),
        (["A"], "tokenizer.json", "this folder lacks tokenizer.json"),
    ],
)
def test_the_script_answers_bad_input_in_one_sentence(
    folder, monkeypatch, capsys, arguments, lost, words
):
    if lost:
        (folder / lost).unlink()
    monkeypatch.setattr(sys, "argv", ["say.py", *arguments])
    monkeypatch.setattr(say, "__file__", str(folder / "say.py"))
    with pytest.raises(SystemExit) as end:
        say.main()
    said = capsys.readouterr()
    assert end.value.code == 2 and not said.out
    assert words in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", "abc", "model.safetensors is damaged: "),
        ("config.json", "{", "config.json is no JSON: "),
        ("config.json", "[]", "config.json holds a list, not a dict"),
        ("config.json", "{}", "the files of this folder do not fit together: 'vocab'"),
        ("tokenizer.json", "\0", "tokenizer.json is no JSON: "),
    ],
)
def test_the_script_names_a_damaged_file(
    folder, monkeypatch, capsys, name, content, words
):
    (folder / name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["say.py", "A"])
    monkeypatch.setattr(say, "__file__", str(folder / "say.py"))
    with pytest.raises(SystemExit) as end:
        say.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("characters", "words"),
    [
        (CHARS[:-1] + "A", "['A'] come twice"),
        (list(CHARS), "a text of 27 characters"),
        ([*CHARS[:-1], "xy"], "a text of 27 characters"),
        (CHARS[:-1], "a text of 27 characters"),
    ],
)
def test_an_alphabet_has_one_character_per_token(folder, characters, words):
    text = json.dumps({"kind": "characters", "characters": characters})
    (folder / "tokenizer.json").write_text(text)
    for read in (release.read_folder, say.read):
        with pytest.raises(ValueError, match=re.escape(words)):
            read(folder)


def test_a_folder_that_was_written_half_over_another_is_refused(folder, monkeypatch):
    def stops(path, content):
        if path.name == "tokenizer.json":
            raise OSError("no space left")
        path.write_bytes(content)

    monkeypatch.setattr(release, "write_whole", stops)
    with pytest.raises(OSError, match="no space"):
        release.write_folder(folder, capstone_model(), CHARS, 8, 8, "# a card")
    with pytest.raises(ValueError, match=r"model lacks config\.json"):
        release.read_folder(folder)


def test_say_draws_by_chance_and_again_the_same(folder):
    drawn = [say.say(folder, "AB", 30, 1.0, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_folder_that_lacks_or_bends_something_is_refused(folder):
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match="model lacks README"):
        release.read_folder(folder)
    (folder / "README.md").write_text("# back")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"layers": 3}))
    with pytest.raises(ValueError, match="holds no model that fits"):
        release.read_folder(folder)
    path.write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("head.weight.scale")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="holds no model that fits"):
        release.read_folder(folder)


def test_a_snapshot_brings_the_run_back():
    def step(model, pair, seed):
        ids = torch.randint(27, (2, 8), generator=torch.Generator().manual_seed(seed))
        torch.nn.functional.cross_entropy(model(ids)[:, -1], ids[:, 0]).backward()
        for optimizer in pair:
            optimizer.step()
            optimizer.zero_grad()

    model = capstone_model()
    pair = muon.for_model(model)
    for seed in range(6):
        if seed == 3:
            saved = release.snapshot(model, pair, 3)
        step(model, pair, seed)
    other = gpt.GPT(27, 16, 2, 3, 24)
    others = muon.for_model(other)
    assert release.restore(saved, other, others) == 3
    assert not release.same_weights(model, other)
    for seed in range(3, 6):
        step(other, others, seed)
    assert release.same_weights(model, other)


def test_published_figures_have_sources_and_the_weights_are_exact():
    assert all(row["source"] and row["value"] > 0 for row in seventy.rows())
    found = seventy.seventy()
    weights, _ = plan.size_up(plan.LLAMA_2_70B, 1, 1)
    assert weights == found["Llama 2 70B"]["weights"]
    # the rotary frequencies of 80 layers lie in the file, in float32
    assert found["Llama 2 70B"]["bytes in 16 bits"] == 2 * weights + 80 * 64 * 4
    weights, _ = plan.size_up(plan.LLAMA_65B, 1, 1)
    assert round(weights / 1e8) in (652, 653)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gains", [False, True])
def test_matrices_are_the_models_own(gated, tied, gains):
    shape = plan.Shape(11, 12, 2, 6, 2, 20, gated, tied, gains)
    model = gpt.GPT(11, 8, 2, 6, 12, groups=2, hidden=20, tied=tied, gain=gains,
                    activation="swiglu" if gated else "relu2")  # fmt: skip
    assert sorted(plan.matrices(shape)) == sorted(
        tuple(p.shape) for p in model.parameters()
    )
