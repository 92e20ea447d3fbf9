"""`python -m acdis VERB …`."""

from acdis.cli import main

main()
