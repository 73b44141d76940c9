"""Airflow writes into its home when it is imported: importing this before it gives it one.

Each process has its own, also where it was started by one that has: two would share a database.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
