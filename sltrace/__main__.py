"""`python -m sltrace`."""

from sltrace.cli.main import main

if __name__ == "__main__":
    main()
