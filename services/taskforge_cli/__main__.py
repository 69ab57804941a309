"""The entry point of `taskforge`."""

import sys

from taskforge_core.settings import quiet_grpc


def main() -> None:
    """Run the command line that the process was started with."""
    # A failure is one line of ours.
    with quiet_grpc():
        from taskforge_cli.application import run
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
