"""Operators for calls, and for the activities of a run."""
