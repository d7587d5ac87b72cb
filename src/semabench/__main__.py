"""`python -m semabench`: the command `semabench`, also where it is not installed."""

from semabench.cli import main

if __name__ == "__main__":
    main()
