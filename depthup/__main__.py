"""`python -m depthup` is `depthup`."""

from depthup.cli import program

program()
