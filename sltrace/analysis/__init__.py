"""From the tables of a trace to results; no privileges, no output."""
