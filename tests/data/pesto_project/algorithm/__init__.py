"""The algorithm of a small PESTO project that the tests load, unmodified."""
