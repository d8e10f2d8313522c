"""Other caches' settings, understood: each dialect is a table, `reader` reads them all onto ours."""
