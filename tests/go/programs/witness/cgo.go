package main

// static int one(void) { return 1; }
import "C"

// That the program is linked with C: its threads are then made by libpthread.
var _ = C.one()
