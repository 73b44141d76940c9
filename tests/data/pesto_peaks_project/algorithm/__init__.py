"""The algorithm of a PESTO project that detects something: its answer is GeoJSON, not an image."""
