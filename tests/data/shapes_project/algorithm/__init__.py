"""The algorithm of a PESTO project with every kind of definition in its schemas."""
