"""Each claim about cost as a runnable, paired measurement: `make bench`."""
