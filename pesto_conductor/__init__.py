"""Conductor side of pesto-workflows: workers of the verbs, workflow definitions, a server for trials."""
