"""The checks, a file for each group; `tiercel.tune.doctor.table` lists them."""
