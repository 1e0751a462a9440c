# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# gpu.lock: sha256 fa63658d66f493f84fad7fd86c37cdc2278f028a81f4b891266ad0c30566876a
exec sh envs/install.sh gpu
