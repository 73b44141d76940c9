"""Operators: a verb each, for any service."""
