# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# cpu.lock: sha256 33b9d74f4ef0afb8cb5a978409a3e7c2cca0b347e4b4e2dad964f01fd70dfbba
exec sh envs/install.sh cpu
