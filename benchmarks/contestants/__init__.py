"""Contestants, a program each: `python -m benchmarks.contestants.NAME TASK.json`.

A module defines `prepare(task)`, which answers the work to be timed. Only `pesto` imports the
project, so that the others also run in an environment of their own.
"""
