"""Views of what was recorded of Go processes."""
