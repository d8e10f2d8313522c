"""The settings of CacheConfig, declared by area. A default, a range and a meaning stand here and nowhere else."""
