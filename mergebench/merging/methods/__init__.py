"""One file per merging method; the registry finds them by being here."""
