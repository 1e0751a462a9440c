"""``python -m mergebench``."""

from mergebench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
