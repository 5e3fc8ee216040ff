"""A loop hands connections to a pool, whose threads ask epoll whether there is a request."""

import concurrent.futures
import selectors
import socket
import sys
import time


def handle(connection):
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.select(1)
    connection.recv(1)
    time.sleep(0.005)


def serve(until):
    mine, other = zip(*(socket.socketpair() for _ in range(3)))
    accepted, _client = socket.socketpair()
    pool = concurrent.futures.ThreadPoolExecutor(3)
    with selectors.DefaultSelector() as selector:
        selector.register(accepted, selectors.EVENT_READ)
        while time.monotonic() < until:
            selector.select(0.02)
            jobs = [pool.submit(handle, each) for each in mine]
            for each in other:
                time.sleep(0.001)
                each.send(b"x")
            concurrent.futures.wait(jobs)


print("ready", flush=True)
serve(time.monotonic() + float(sys.argv[1]))
