"""OGC API - Processes beside PESTO's endpoints: the same processes and jobs in another form."""
