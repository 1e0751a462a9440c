# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# gpu.lock: sha256 5d5e422d49565907d85485a91de61abcd0394cc3bd1c5842e34aec1c4770c3bd
exec sh envs/install.sh gpu
