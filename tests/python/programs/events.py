"""A service's events, which a thread takes from a queue; now and then it asks a socket (epoll).

Its file has the name of one of asyncio's.
"""

import queue
import selectors
import socket
import sys
import threading
import time

todo = queue.Queue()
mine, other = socket.socketpair()


def handle():
    time.sleep(0.025)


def work():
    selector = selectors.DefaultSelector()
    selector.register(mine, selectors.EVENT_READ)
    handled = 0
    while True:
        todo.get()
        handle()
        handled += 1
        if handled % 3 == 0:
            selector.select(0.001)


threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    todo.put(1)
    time.sleep(0.06)
