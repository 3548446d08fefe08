"""Where heavy work is computed: a Dask cluster. What the work is belongs elsewhere."""
