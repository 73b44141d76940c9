"""Serve a process over HTTP: the PESTO protocol, problem documents, a bounded queue."""
