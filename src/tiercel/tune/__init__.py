"""Know before you buy: traces read, machines measured, caches simulated, configurations advised and held to reality.

`traces` reads the field's request traces into one form. `curves` tells the hit rate of every capacity in one pass. `machine`
is what `probe` found this machine capable of. `simulate` runs the real control half over both with a virtual clock,
`replay` the real cache with real bytes; `advise` searches for what to set, and `doctor` says what is wrong with what is set.
"""
