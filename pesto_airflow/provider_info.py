"""What Airflow is told of this provider; imports nothing."""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Answer Airflow's provider document."""
    return {
        "package-name": "pesto-workflows",
        "name": "PESTO workflows",
        "description": "Chains PESTO services over whole scenes, tiled, as mapped tasks.",
    }
