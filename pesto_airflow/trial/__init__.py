"""Run a pipeline on a running Airflow, or on one started for it: `pesto run --engine airflow`."""
