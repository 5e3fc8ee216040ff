"""The HTML report: analysis results as one offline page."""
