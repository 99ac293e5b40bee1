"""What all tests need of the process that they run in."""

import signal

# A runner that was started in the background ignores interrupts, and its children inherit that; many tests interrupt children.
signal.signal(signal.SIGINT, signal.default_int_handler)
