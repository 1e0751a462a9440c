"""What can be known about a site before the first job: each check says what it found and, when it fails, what to do.

`gather` asks the machine, the cluster and the files; every check is a pure function from these facts to findings.
"""
