"""`python -m depthup` is `depthup`."""

from depthup.cli import main

main()
