"""What an operator sees of a running cache: counters, Prometheus metrics, structured logs and a status socket.

`metrics` counts (plain integers, cheap enough for every lookup), `snapshot` is the one message that says how a cache is
doing, `prometheus` and `status` serve that message to a scraper and to `tiercel stats`, `logs` sets up the standard
logging module. Nothing here is imported before it is used, and nothing here decides anything.
"""
