"""Run calls as jobs: accepted, stored, and completed after the client has gone."""
