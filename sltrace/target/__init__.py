"""What is inside a process that is recorded: its language runtime, read from outside."""
