"""Cures for nbval 0.11; a pytest plugin, loaded with -p before nbval collects.

It sends cells with store_history=False, so IPython never sees a trailing `;` and a
silenced value comes out (nbval issue 194). And importing nbformat spends two seconds on
a grammar that only checks web addresses.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)

from nbval import kernel  # noqa: E402


def _execute(self, source, allow_stdin=None):
    return self.kc.execute(
        source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
    )


kernel.RunningKernel.execute_cell_input = _execute
