"""`python cli.py ...` from a checkout is `depthup ...`."""

from depthup.cli import main

if __name__ == "__main__":
    main()
