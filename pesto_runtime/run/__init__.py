"""Run pipelines: the activities that every engine calls, and the local engine.

An activity receives and returns small values, never pixels. It may be called twice: the second call
writes the same bytes at the same place, or nothing.
"""
