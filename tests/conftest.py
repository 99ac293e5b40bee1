"""What all tests need of the process that they run in."""

import os
import shutil
import signal

# A runner that was started in the background ignores interrupts, and its children inherit that; many tests interrupt children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU, Triton's kernels are run by its interpreter. It decides that when it is imported, which other packages do too.
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"
