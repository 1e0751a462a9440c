"""What the Snakefile asks of the package: the locked configuration, the plan of jobs, and the progress log."""
