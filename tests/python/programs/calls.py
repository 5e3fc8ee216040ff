"""Threads in calls that wait for one thing each; prints which thread is in which."""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time


def starts():
    """Of the child, from vfork() until it is another program, and then until it ends."""
    subprocess.run(["/bin/true"], check=True)


def closes():
    """What has not been sent lingers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = socket.create_connection(listening.getsockname())
        receiving, _ = listening.accept()
    with receiving:
        sending.setblocking(False)
        try:
            while True:
                sending.send(bytes(1 << 20))
        except BlockingIOError:
            pass
        sending.setblocking(True)
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        sending.close()


def awaits():
    signal.sigtimedwait([signal.SIGUSR1], 0.02)


taken = threading.Lock()
taken.acquire()


def locks():
    taken.acquire(timeout=0.05)


def again(call):
    while True:
        call()


calls = (starts, closes, awaits, locks)
threads = [threading.Thread(target=again, args=(c,), daemon=True) for c in calls]
for each in threads:
    each.start()
print(json.dumps([each.native_id for each in threads]), flush=True)
time.sleep(float(sys.argv[1]))
