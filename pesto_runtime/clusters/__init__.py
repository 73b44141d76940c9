"""Run the chunks of a pipeline on a cluster of Dask or of Spark."""
