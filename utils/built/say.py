"""Writes on with the model in this folder:  python say.py "ROMEO:" --count 80

Needs torch and safetensors and nothing else of the course. temperature 0: always the
likeliest character; above it, by chance.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

FILES = "config.json", "tokenizer.json", "model.safetensors"


def read(folder):
    "-> (config, characters, {name: weights in float32})."
    folder = Path(folder)
    config, text = parse(folder / "config.json"), parse(folder / "tokenizer.json")
    characters = alphabet(text["characters"], config["vocab"])
    held = load_file(folder / "model.safetensors")
    weights = {}
    for name, codes in held.items():
        if name.endswith(".codes"):
            scale = held[name.removesuffix("codes") + "scale"].float()
            weights[name.removesuffix(".codes")] = unpack(codes, scale, config)
        elif not name.endswith(".scale"):
            weights[name] = codes.float()
    return config, characters, weights


def parse(path):
    "The dict in a JSON file, or ValueError."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a {type(found).__name__}, not a dict")
    return found


def alphabet(characters, count):
    "A text of `count` different characters, one per token, or ValueError."
    if not isinstance(characters, str) or len(characters) != count:
        raise ValueError(
            f"the characters are a text of {count} characters, one per token"
        )
    twice = sorted(char for char in set(characters) if characters.count(char) > 1)
    if twice:
        raise ValueError(f"a character stands for one token: {twice} come twice")
    return characters


def unpack(codes, scale_HG, config):
    "Codes and scales -> the matrix (H, D)."
    H, D = scale_HG.shape[0], scale_HG.shape[1] * config["group"]
    if config["bits"] == 4:  # two to a byte, the first in the lower half
        both = torch.stack([codes & 15, codes >> 4], 1).flatten()[: H * D]
        codes = (both.to(torch.int16) ^ 8) - 8
    return codes.view(H, D).float() * scale_HG.repeat_interleave(config["group"], 1)


def logits(ids_T, config, weights):
    "Ids (T,) -> logits (T, V): chapter 09's network, in twenty lines."
    width, heads = config["width"], config["heads"]
    T, D = len(ids_T), width // heads
    angle = torch.arange(T)[:, None] / config["base"] ** (
        2 * torch.arange(D // 2, dtype=torch.float32) / D
    )
    cos, sin = angle.cos(), angle.sin()

    def norm(x):
        return F.rms_norm(x, (width,), eps=1e-6)

    def apply(name, x):
        return x @ weights[name + ".weight"].T

    def turn(x_THD):
        a, b = x_THD.transpose(0, 1).chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    x = weights["tokens.weight"][ids_T]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    for layer in range(config["layers"]):
        at = f"blocks.{layer}."
        h = norm(x)
        q, k, v = (
            apply(at + f"attention.{name}", h).view(T, heads, D)
            for name in ("query", "key", "value")
        )
        scores = turn(q) @ turn(k).mT / math.sqrt(D)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v.transpose(0, 1)
        x = x + apply(at + "attention.out", mixed.transpose(0, 1).reshape(T, width))
        x = x + apply(at + "mlp.down", apply(at + "mlp.up", norm(x)).relu().square())
    cap = config["softcap"]
    return cap * torch.tanh(apply("head", norm(x)) / cap)


@torch.no_grad()
def say(folder, prompt, count, temperature=0.0, seed=0):
    "The prompt and `count` characters more."
    if not prompt:
        raise ValueError("the prompt is empty: give at least one character")
    if count < 0:
        raise ValueError(f"count is a number of characters to write, not {count}")
    if temperature != 0 and not 1e-3 <= temperature < math.inf:
        raise ValueError(f"temperature is 0 or at least 0.001, not {temperature:g}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError("seed is a whole number of at most 63 bits")
    config, characters, weights = read(folder)
    strange = sorted(set(prompt) - set(characters))
    if strange:
        raise ValueError(f"the model knows no {strange}")
    ids = [characters.index(char) for char in prompt]
    dice = torch.Generator().manual_seed(seed)
    for _ in range(count):
        last_V = logits(torch.tensor(ids), config, weights)[-1]
        if temperature:
            chances = (last_V / temperature).softmax(-1)
            ids.append(int(torch.multinomial(chances, 1, generator=dice)))
        else:
            ids.append(int(last_V.argmax()))
    return "".join(characters[i] for i in ids)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        "One sentence, and exit code 2."
        self.exit(2, f"{self.prog}: {message}\n")


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.reconfigure(errors="replace")  # a console may not have all characters
    here = Path(__file__).parent
    try:
        print(say(here, told.prompt, told.count, told.temperature, told.seed))
    except FileNotFoundError as error:
        lost = [name for name in FILES if not (here / name).is_file()] or [error]
        parser.error(f"this folder lacks {', '.join(map(str, lost))}")
    except SafetensorError as error:
        parser.error(f"model.safetensors is damaged: {error}")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except (KeyError, TypeError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        parser.error(f"the files of this folder do not fit together: {first}")


if __name__ == "__main__":
    main()
