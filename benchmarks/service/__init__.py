"""Benchmarks of the service against bare Starlette, bare FastAPI and PESTO 1.7.2, by wrk."""
