"""Let `python -m <package>` run the command line."""

from .cli import main

main()
