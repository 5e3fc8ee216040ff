"""Go processes as a source of waits."""
