"""Read windows, write products, encode and decode images. The only user of rasterio and GDAL."""
