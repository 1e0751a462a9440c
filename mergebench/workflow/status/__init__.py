"""How far a campaign is, from its files and Slurm alone: no workflow has to be alive."""
