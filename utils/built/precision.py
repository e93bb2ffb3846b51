"""What chapter 13 builds: number formats bit by bit, and training in 16 of them.

A format is E bits of exponent and M bits of fraction behind one sign. A format, a scale or
a name that cannot be raises ValueError.
"""

import torch
import torch.nn.functional as F

from utils import given

FORMATS = {  # name: exponent bits, fraction bits
    "fp32": (8, 23),
    "tf32": (8, 10),
    "bf16": (8, 7),
    "fp16": (5, 10),
    "e5m2": (5, 2),
    "e4m3": (4, 3),
}


def _format(E, M):
    given.whole("E", E, least=2, most=11)
    given.whole("M", M, least=1, most=52)


def value_of(bits, E, M):
    """The number that 1 sign, E exponent and M fraction bits (a whole number) stand for.

    The rules are IEEE 754's, section 3.4; e4m3 differs in its last row (no infinity).
    """
    _format(E, M)
    given.whole("bits", bits, least=0)
    if bits >= 2 ** (1 + E + M):
        raise ValueError(f"{bits} does not fit into {1 + E + M} bits")
    sign = -1.0 if bits >> (E + M) else 1.0
    exponent, fraction = (bits >> M) % 2**E, bits % 2**M
    bias = 2 ** (E - 1) - 1
    if exponent == 2**E - 1:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return sign * fraction / 2**M * 2.0 ** (1 - bias)
    return sign * (1 + fraction / 2**M) * 2.0 ** (exponent - bias)


def round_to(x, E, M):
    """float64 tensor -> the nearest numbers with E exponent and M fraction bits, in float64.

    Any shape. A tie goes to the even neighbour, as in IEEE 754, section 4.3.1; what rounds
    beyond the largest number is infinite.
    """
    _format(E, M)
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"x is a tensor of floats, not {x!r:.60}")
    bias = 2 ** (E - 1) - 1
    exponent = torch.frexp(x).exponent.double() - 1
    spacing = 2.0 ** (exponent.clamp(min=1 - bias) - M)
    rounded = torch.round(x / spacing) * spacing
    largest = (2 - 2.0**-M) * 2.0**bias
    return torch.where(rounded.abs() > largest, x.sign() * torch.inf, rounded)


DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "e5m2": torch.float8_e5m2,
    "e4m3": torch.float8_e4m3fn,
}


def bits_of(number, name):
    """A number in a format -> ("sign exponent fraction" in bits, the value they say).

    tf32 is fp32 rounded to 10 bits of fraction, as matrix units do with their inputs.
    ValueError for a name that FORMATS has not.
    """
    if name not in FORMATS:
        raise ValueError(f"{name!r} is no format: {', '.join(FORMATS)}")
    E, M = FORMATS[name]
    x = torch.tensor([number], dtype=torch.float64)
    if name == "tf32":
        x = round_to(x, E, M)
    x = x.float().to(DTYPES.get(name, torch.float32))
    width = 8 * x.element_size()
    whole = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[width]
    bits = f"{x.view(whole).item() % 2**width:0{width}b}"[: 1 + E + M]
    return f"{bits[0]} {bits[1 : 1 + E]} {bits[1 + E :]}", x.double().item()


class LossScaler:
    """Multiplies the loss before backward, divides the gradients after it.

    A step whose gradients are not finite is left out, and the scale halves; after
    `patience` good steps in a row it doubles: the rule and the defaults of
    torch.amp.GradScaler. step waits for the chip once a tensor.
    """

    def __init__(self, scale=2.0**16, patience=2000):
        self.scale = float(given.number("scale", scale, above=0))
        self.patience, self.good = given.whole("patience", patience), 0

    def backward(self, loss):
        "Gradients of the loss, a tensor of one number, times the scale; loss stays as it is."
        (loss * self.scale).backward()

    def step(self, optimizer):
        "Unscale, step if all gradients are finite, adapt: -> whether it stepped."
        grads = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        for grad in grads:
            grad.div_(self.scale)
        if not all(bool(grad.isfinite().all()) for grad in grads):
            self.scale, self.good = self.scale / 2, 0
            return False
        optimizer.step()
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0
        return True


def amp_step(model, X_BD, y_B, optimizer, dtype, scaler=None):
    """One training step in mixed precision -> the loss, a tensor without a graph.

    X_BD (B, D), y_B (B,) whole numbers; dtype: torch.bfloat16 or torch.float16; scaler: a
    LossScaler, which float16 needs. ValueError for another dtype.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is torch.bfloat16 or torch.float16, not {dtype!r}")
    optimizer.zero_grad()
    with torch.autocast(X_BD.device.type, dtype=dtype):
        loss = F.cross_entropy(model(X_BD), y_B)
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.backward(loss)
        scaler.step(optimizer)
    return loss.detach()
