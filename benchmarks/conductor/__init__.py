"""Benchmarks of Conductor: what its tasks add, and what our workers add to those."""
