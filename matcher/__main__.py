"""``python -m matcher`` is ``widebase``."""

from __future__ import annotations

from matcher.cli import main

if __name__ == "__main__":
    main()
