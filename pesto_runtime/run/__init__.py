"""Run pipelines: the activities that every engine calls, and the local engine.

Each activity takes and returns small values, never pixels, and may be called twice: the second
call writes the same bytes at the same place, or nothing.
"""
