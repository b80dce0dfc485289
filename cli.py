"""`python cli.py ...` from a checkout is `depthup ...`."""

from depthup.cli import program

if __name__ == "__main__":
    program()
