"""Pixels: read windows, write products, encode and decode images. The only user of GDAL."""
