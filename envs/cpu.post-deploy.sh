# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# cpu.lock: sha256 3c130435b76004f55db0189fb961f08f3dd478b6141df860078e54430b62187c
exec sh envs/install.sh cpu
