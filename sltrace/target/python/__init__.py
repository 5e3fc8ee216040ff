"""CPython in another process: where it is, how its structures lie, what they say."""
