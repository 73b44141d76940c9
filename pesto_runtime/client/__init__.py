"""Call services over HTTP: describe, health, process and jobs, blocking or async."""
