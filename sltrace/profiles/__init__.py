"""Profiles of others: read, bounded and checked."""
