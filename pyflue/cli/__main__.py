"""``python -m pyflue.cli``: the same as ``pyflue``."""

from pyflue.cli import main

main()
