"""``python -m castalia`` is ``castalia``."""

from castalia.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
