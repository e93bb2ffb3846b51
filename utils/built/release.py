"""What chapter 29 builds last: a model as a folder that stands on its own.

    write_folder(folder, model, chars, bits=4, group=32, card=text)  # -> bytes of weights
    model, chars = read_folder(folder)

    saved = snapshot(model, optimizers, step)    # what a run must remember
    step = restore(saved, model, optimizers)

model.safetensors (codes and scales), config.json, tokenizer.json (characters), say.py (a
script that needs torch and safetensors alone) and README.md (the card). The codes are
chapter 24's; `say.py` is built/say.py, as it is.
"""

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from utils import given
from utils.built import packed, say
from utils.built.gpt import GPT
from utils.files import write_whole

FILES = "model.safetensors", "config.json", "tokenizer.json", "say.py", "README.md"


def config_of(model, bits, group):
    "What must be known to rebuild a GPT of chapter 09: a dict of plain values."
    mlp = model.blocks[0].mlp
    plain = (
        model.positions == "rotary" and not model.tied and mlp.gate is None
        and model.groups == model.heads and model.softcap and model.window is None
        and all(len(p.shape) == 2 for p in model.parameters())
    )  # fmt: skip
    if not plain:
        raise ValueError(
            "the folder holds chapter 09's own block, with no options changed"
        )
    return {
        "vocab": model.vocab, "context": model.context, "layers": len(model.blocks),
        "heads": model.heads, "width": model.width, "hidden": mlp.up.weight.shape[0],
        "base": model.base, "softcap": model.softcap, "bits": bits, "group": group,
    }  # fmt: skip


def compress(model, bits, group):
    "{name.codes: uint8 or int8, name.scale: float16} of every matrix of a model."
    if bits not in (4, 8):
        raise ValueError(f"bits is 4 or 8, not {bits!r:.40}")
    tensors = {}
    for name, p in model.named_parameters():
        held = packed.pack(p.detach(), bits, group)
        codes = packed.pack_int4(held.q) if bits == 4 else held.q
        tensors[f"{name}.codes"] = codes.contiguous()
        tensors[f"{name}.scale"] = held.scale.half()
    return tensors


def write_folder(folder, model, chars, bits=4, group=32, card=""):
    "Write the five files, each whole: -> bytes of model.safetensors."
    say.alphabet(chars, model.vocab)
    if not isinstance(card, str) or not card.strip():
        raise ValueError("a folder without a card is not given away: card is a text")
    config = config_of(model, bits, group)
    blob = save(compress(model, bits, group))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = {"kind": "characters", "characters": chars}
    (folder / "config.json").unlink(missing_ok=True)  # half a folder has none
    write_whole(folder / "model.safetensors", blob)
    write_whole(folder / "tokenizer.json", json.dumps(kind, ensure_ascii=False))
    write_whole(folder / "say.py", Path(say.__file__).read_text(encoding="utf-8"))
    write_whole(folder / "README.md", card)
    write_whole(folder / "config.json", json.dumps(config, indent=1))
    return len(blob)


def read_folder(folder):
    "-> (GPT of chapter 09, characters). ValueError for a folder that lacks something."
    folder = Path(folder)
    if lacking := [name for name in FILES if not (folder / name).is_file()]:
        raise ValueError(f"{folder.name} lacks {', '.join(lacking)}")
    try:
        config, chars, weights = say.read(folder)
        model = GPT(
            config["vocab"], config["context"], config["layers"], config["heads"],
            config["width"], hidden=config["hidden"], base=config["base"],
            softcap=config["softcap"],
        )  # fmt: skip
        model.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{folder.name} holds no model that fits: {first}") from error
    return model.eval(), chars


def header_bytes(path):
    "Bytes of a safetensors file that are names and sizes, not weights."
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def held_bytes(path):
    "Bytes of the tensors in a safetensors file."
    return sum(t.numel() * t.element_size() for t in load_file(path).values())


def same_weights(a, b):
    "Whether two models hold the same bits."
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[n], theirs[n]) for n in mine
    )


# ---- a run that goes on ----


def snapshot(model, optimizers, step):
    """All that the next step reads: {"model", "optimizers", "step"}, copied.

    step: the one that comes next. Batches are drawn from it, so no random state is held.
    """
    given.whole("step", step, 0)
    states = [optimizer.state_dict() for optimizer in optimizers]
    return copy.deepcopy(
        {"model": model.state_dict(), "optimizers": states, "step": step}
    )


def restore(saved, model, optimizers):
    "Put a snapshot back, in place: -> the step that comes next."
    if len(saved["optimizers"]) != len(optimizers):
        raise ValueError(
            f"the snapshot is of {len(saved['optimizers'])} optimizers, not {len(optimizers)}"
        )
    model.load_state_dict(saved["model"])
    for optimizer, state in zip(optimizers, saved["optimizers"]):
        optimizer.load_state_dict(state)
    return saved["step"]
