"""Conductor side of pesto-workflows: workers of the verbs, definitions, a server for trials."""
