# The image of Airflow's pods: scheduler, triggerer, DAG processor, and one pod for each task.
FROM apache/airflow:3.3.2-python3.11
RUN pip install --no-cache-dir "pesto-workflows[airflow]"
# Packages that code of the DAG bundle imports belong here too; the code itself comes with the bundle.
