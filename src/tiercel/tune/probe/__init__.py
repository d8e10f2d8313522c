"""`tiercel probe`: measures what this machine is capable of, and how far to believe it.

`run` goes through the steps and makes a `Machine` of them; `trust` decides how often something is measured; `host`, `disk` and
`gpu` measure; `facts` asks the kernel; `compare` and `report` make rows of what was found.
"""
