"""Where rows come from: the hub, a folder of the authors' files, or the tiny generator. Same rows, same checks."""
