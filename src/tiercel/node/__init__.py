"""One cache for many processes: `server` runs it, `client` has its facade in every other process.

The public names are `connect` and `NodeClient`.
"""
