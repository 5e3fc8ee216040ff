"""Numbers of things in words."""


def counted(count: int, what: str) -> str:
    """How many of it: `1 wait`, `2,000 waits`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
