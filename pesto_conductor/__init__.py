"""Conductor side of pesto-workflows: workers for the activities, definitions, a trial server."""
