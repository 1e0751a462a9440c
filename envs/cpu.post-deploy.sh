# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# cpu.lock: sha256 0d7f1a1b78128ee99e1504e264ddb9ff3a6c1d1036ca6639fed20fb0afbd4059
exec sh envs/install.sh cpu
