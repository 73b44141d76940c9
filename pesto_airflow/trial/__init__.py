"""Run a pipeline on an Airflow of its own or one that runs: `pesto run --engine airflow`."""
