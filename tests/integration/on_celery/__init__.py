"""Tests on an Airflow of several machines."""
