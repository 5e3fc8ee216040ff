"""`python -m sltrace`."""

from sltrace.entry import main

if __name__ == "__main__":
    main()
