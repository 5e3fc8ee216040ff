"""Compiles a rule, follows it for a while and drops it, again and again: rules.py SECONDS NAPS.

Each comes to where the one before was. A rule naps so often, 5 ms each. Prints the name of
each and when it begins, in nanoseconds (CLOCK_MONOTONIC).
"""

import sys
import time

RULE = "def {name}():\n    time.sleep(0.005)\n"

end = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end:
    name = f"rule_{number:03d}"
    number += 1
    scope = {"time": time}
    exec(RULE.format(name=name), scope)
    rule = scope[name]
    print(name, time.monotonic_ns(), flush=True)
    for _ in range(int(sys.argv[2])):
        rule()
    del rule
    scope.clear()
