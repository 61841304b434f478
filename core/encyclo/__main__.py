"""`python -m encyclo` is the same command as `encyclo`."""

from encyclo.cli import main

if __name__ == "__main__":
    main()
