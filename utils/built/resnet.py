"""What chapter 06 builds to see with: a residual block, two small networks, the recipe.

Shapes: x (N, C, H, W) pictures, channels first; logits (N, classes).
"""
# ruff: noqa: E741  (O is the number of outputs, as in w_OCKK)

import torch
import torch.nn.functional as F
from torch import nn

from utils import given
from utils.built import train

# ---- networks ----


class Residual(nn.Module):
    """Two 3 x 3 convolutions whose result is added to their input (He and others, 2015).

    x (N, C, H, W) -> (N, O, H / stride, W / stride). Where shapes change, the input goes
    through a 1 x 1 convolution.
    """

    def __init__(self, C, O, stride=1):
        super().__init__()
        for name, value in (("C", C), ("O", O), ("stride", stride)):
            given.whole(name, value)
        self.conv1 = nn.Conv2d(C, O, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(O)
        self.conv2 = nn.Conv2d(O, O, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(O)
        self.skip = nn.Identity()
        if C != O or stride != 1:
            self.skip = nn.Sequential(
                nn.Conv2d(C, O, 1, stride, bias=False), nn.BatchNorm2d(O)
            )

    def forward(self, x_NCHW):
        h = F.relu(self.norm1(self.conv1(x_NCHW)))
        return F.relu(self.norm2(self.conv2(h)) + self.skip(x_NCHW))


class Mean(nn.Module):
    "The mean over all places: (N, C, H, W) -> (N, C)."

    def forward(self, x_NCHW):
        return x_NCHW.mean((2, 3))


def small_resnet(channels=1, classes=10, width=16):
    """A residual net for pictures of about 28 x 28: 77,754 parameters at width 16.

    Stem of stride 2, pooling, three blocks of width, 2 width, 4 width, the mean over all
    places. Its first weights come from torch's random state.
    """
    given.whole("channels", channels), given.whole("classes", classes)
    w = given.whole("width", width)
    net = nn.Sequential(
        nn.Conv2d(channels, w, 3, 2, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
        nn.MaxPool2d(2), Residual(w, w), Residual(w, 2 * w, 2),
        Residual(2 * w, 4 * w, 2), Mean(), nn.Linear(4 * w, classes),
    )  # fmt: skip
    return net.to(memory_format=torch.channels_last)  # same numbers, a faster order


def two_convolutions(channels=1, side=28, classes=10, width=8):
    "A small plain network: two convolutions, two poolings, one linear layer."
    side, w = given.whole("side", side, least=8), given.whole("width", width)
    given.whole("channels", channels), given.whole("classes", classes)
    left = ((side + 1) // 2) // 2 // 2
    return nn.Sequential(
        nn.Conv2d(channels, w, 3, 2, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(w, 2 * w, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * w), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(2 * w * left**2, classes),
    )  # fmt: skip


# ---- more pictures than there are ----


def flip_and_shift(x_NCHW, rng, most=2, flip=True):
    """Each picture mirrored or not, and moved by up to `most` pixels; what enters is 0.

    rng: a torch.Generator. flip=False for pictures whose mirror image is another class.
    """
    most = given.whole("most", most, least=0)
    if not isinstance(rng, torch.Generator):
        raise TypeError(f"rng is torch.Generator().manual_seed(seed), not {rng!r:.60}")
    if not isinstance(x_NCHW, torch.Tensor) or x_NCHW.ndim != 4:
        raise ValueError(
            f"pictures are a tensor (N, C, H, W), not {given.kind(x_NCHW)}"
        )
    N, C, H, W = x_NCHW.shape
    if flip:
        mirrored_N = torch.rand(N, generator=rng) < 0.5
        x_NCHW = torch.where(mirrored_N[:, None, None, None], x_NCHW.flip(-1), x_NCHW)
    padded = F.pad(x_NCHW, (most,) * 4)
    top_N, left_N = torch.randint(0, 2 * most + 1, (2, N), generator=rng)
    n, c = torch.arange(N)[:, None, None, None], torch.arange(C)[:, None, None]
    rows = top_N[:, None, None, None] + torch.arange(H)[:, None]
    columns = left_N[:, None, None, None] + torch.arange(W)
    return padded[n, c, rows, columns]


class Augmented:
    """The batches of a `train.loader`, changed as they come: change(X, generator) -> X.

    The generator depends on seed, epoch and batch alone, so that `train.fit` goes on with
    the same pictures where it was cut off.
    """

    def __init__(self, batches, change=flip_and_shift, seed=0):
        self.batches, self.sampler = batches, getattr(batches, "sampler", None)
        if not isinstance(self.sampler, train.Order):
            raise TypeError("batches are what train.loader(X, y, size) gives")
        self.change, self.seed = given.function("change", change), seed

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        first, epoch = self.sampler.done, self.sampler.epoch
        for number, (X, y) in enumerate(self.batches, first):
            rng = torch.Generator().manual_seed(
                (1_000_003 * self.seed + epoch) * 1_000_003 + number
            )
            yield self.change(X, rng), y


# ---- the recipe ----


def learn(net, X, y, epochs, lr=0.01, *, seed=0, change=None, loss=F.cross_entropy):
    """Train with AdamW, one rise and fall of the rate, batches of 64 -> train.History.

    X (N, C, H, W), y (N,): tensors or arrays; change: augmentation, as flip_and_shift.
    """
    batches = train.loader(X, y, 64, seed)
    if change is not None:
        batches = Augmented(batches, change, seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, fused=True)
    steps = given.whole("epochs", epochs) * max(len(batches), 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    return train.fit(net, batches, optimizer, epochs, scheduler=schedule, loss=loss)


def accuracy(net, X, y):
    "Share of right answers, in evaluation mode, 500 pictures at a time."
    return train.evaluate(net, train.loader(X, y, 500)).accuracy
