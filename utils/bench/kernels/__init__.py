"""Our GPU kernels in Triton: the sources that `python3 start.py measure` runs and times.

Each module imports Triton, so load one only where Triton is installed. They compile for a
GPU that is not there (tests/test_kernels.py does it for an H100), and most run in
Triton's interpreter (TRITON_INTERPRET=1, in fp32).
"""
