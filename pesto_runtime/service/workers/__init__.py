"""Worker processes of a service: one that dies, or never returns, loses only its own call."""
