"""Runs one program after the other that is no Python."""

import subprocess
import sys
import time

print("ready", flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    subprocess.run(["/bin/true"])
