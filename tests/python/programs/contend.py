"""Threads that want the GIL, a lock, a pipe and sleep; prints its threads' roles as JSON."""

import json
import os
import sys
import threading
import time

stop = False
lock = threading.Lock()
reading, writing = os.pipe()


def burn(n):
    total = 0
    for i in range(n):
        total += i
    return total


def hog():
    while not stop:
        burn(20000)


def sleeper():
    while not stop:
        time.sleep(0.005)


def locker():
    while not stop:
        with lock:
            time.sleep(0.003)


def reader():
    while not stop:
        os.read(reading, 1)


def writer():
    while not stop:
        time.sleep(0.01)
        os.write(writing, b".")


roles = [hog] * int(sys.argv[2]) + [sleeper, locker, locker, reader, writer]
threads = [threading.Thread(target=role, daemon=True) for role in roles]
for thread in threads:
    thread.start()
named = {t.native_id: r.__name__ for t, r in zip(threads, roles)}
print(json.dumps(named), flush=True)
time.sleep(float(sys.argv[1]))
stop = True
