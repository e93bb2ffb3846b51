"""Runs first in every kernel that the author or the tests start: a warning is an error."""

import re
import warnings

warnings.simplefilter("error")
for module in (
    "ipykernel", "IPython", "jupyter_client", "traitlets", "tornado", "zmq", "asyncio",
    "debugpy", "comm", "jedi", "torch._dynamo", "torch._inductor", "torch.jit", "onnx",
):  # fmt: skip
    warnings.filterwarnings("ignore", module=rf"{re.escape(module)}(\.|$)")
warnings.filterwarnings("ignore", category=ResourceWarning)
del module, re, warnings
