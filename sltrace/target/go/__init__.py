"""A Go process seen from outside: layout of its executable, offsets, and its memory."""
