"""A running cache, watched: `tiercel top`.

`history` keeps the last minute of status snapshots and tells rates from them, `watching` finds caches and outlasts their
restarts, `screen` lays out lines for a given width, `terminal` shows them and hands the terminal back as it was. All of it
reads the status socket and nothing else.
"""
