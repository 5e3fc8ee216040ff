"""Addresses to function names, after recording."""
