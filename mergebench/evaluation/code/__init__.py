"""Model-written programs: how they are put together and run in a sandbox."""
