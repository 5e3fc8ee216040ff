"""What `sltrace top` is made of: recorders, a reader of the live trace, choices, the picture."""
