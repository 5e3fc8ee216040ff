"""Other formats, written from analysis results."""
