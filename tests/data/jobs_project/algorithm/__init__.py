"""The algorithm of a small PESTO project that answers with jobs."""
