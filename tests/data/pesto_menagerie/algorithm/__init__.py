"""Echoes what it is given: what PESTO answers for each type is captured with it."""
