"""Sweeps: many runs from one command, locally or through Slurm; one that fails stops no other."""
