"""Our GPU kernels in Triton: the sources that `python3 start.py measure` runs and times.

attention, matmul and rows are the tuned ones. Each imports Triton, so load one only where
Triton is installed. They compile for a GPU that is not there (tests/test_kernels.py does
it for an H100), and most run in Triton's interpreter (TRITON_INTERPRET=1, in fp32), all of
them in the course's own (utils/built/tile_files.py). Chapter 15's kernels are
utils/built/kernels.py: `compiled` hands them to Triton, `interpreters` has the chapter's
rows of `python3 start.py bench`.
"""

import utils.bench.kernels.interpreters  # noqa: F401
