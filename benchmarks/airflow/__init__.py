"""What Airflow adds to a run: our chunks against a mapped task per tile, and the local engine."""
