"""Python services: stacks, GIL waits, trace ids, event loops, CPU samples."""
