"""Airflow provider of pesto-workflows: discover services, chain them, fan tiles out as mapped tasks."""
