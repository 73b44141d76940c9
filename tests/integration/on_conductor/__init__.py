"""Tests on a real Conductor."""
