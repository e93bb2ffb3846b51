"""What `python3 start.py measure` can measure, kind by kind.

A kind is a generator function(dev, quick) of rows: {what, labels ..., work, unit,
seconds: [...]}. What could not be measured is a row with `why` in place of seconds; a
recording keeps those apart, in `left_out`. None means: keep what is there by now.
"""

from utils.bench.kinds import attention, chip, kernel, operators, rung

# In the order of importance: a run whose time is up has the first ones.
ALL = {
    f.__name__: f
    for f in (
        chip.matmul, chip.copy, chip.timer, chip.transfer, chip.step, chip.memory,
        chip.launch, chip.loader, operators.stream, operators.operator,
        attention.attention, kernel.kernel, rung.rung,
    )
}  # fmt: skip

# Kinds that `--apart` runs in a process of their own, and the share of all minutes that
# each may take: a kernel of ours that hangs or faults must not take the others along.
GROUPS = (
    (tuple(ALL)[:10], 0.30),
    (("attention",), 0.18),
    (("kernel",), 0.35),
    (("rung",), 0.40),
)
