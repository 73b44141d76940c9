"""Benchmarks of the local engine against peers on the same work: `python -m benchmarks`."""
