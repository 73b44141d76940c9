"""The algorithm that all contestants of the service's benchmark run."""
