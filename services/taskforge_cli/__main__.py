"""The entry point of `taskforge`."""

import sys

from taskforge_cli.application import run


def main() -> None:
    """Run the command line that the process was started with."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
