"""The programs' entry points: arguments in, text and exit codes out, nothing else."""
