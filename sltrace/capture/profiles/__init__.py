"""Profiles of others that are taken into the trace: pushed to a port, or read from files."""
