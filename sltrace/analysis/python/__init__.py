"""What a trace says about Python processes: the GIL, event loops, locks, the collector."""
