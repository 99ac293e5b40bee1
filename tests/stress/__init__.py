"""Long runs against a real engine, started by hand: `python -m tests.stress.fuzz`, `python -m tests.stress.soak`."""
