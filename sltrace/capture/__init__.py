"""Recording: load and attach the probes, drain their rings, write the trace. Needs root."""
