"""The algorithm of a PESTO project that needs a margin, and cannot say so."""
