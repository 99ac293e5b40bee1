"""One command a claim: `python -m benchmarks.NAME` measures both sides in one run and prints the ratio last."""
