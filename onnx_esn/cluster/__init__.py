"""Work on the workers of a Dask cluster; only `connection` imports dask."""
