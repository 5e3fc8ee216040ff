"""Threads that sleep again and again, each at the end of another kind of stack."""

import contextlib
import json
import os
import sys
import threading
import time
import traceback

stop = False
NAP = 0.004


def nap():
    while not stop:
        time.sleep(NAP)


def deep(n, what):
    return what() if n == 0 else deep(n - 1, what)


class Service:
    def handle(self):
        self.inner(
            one=1,
            two=2,
        )

    def inner(self, one, two):
        nap()

    @staticmethod
    def static():
        (lambda: nap())()

    @classmethod
    def made(cls):
        cls().handle()


def generator():
    yield from middle()


def middle():
    nap()
    yield 1


def through_c():
    sorted([2, 1], key=lambda value: nap() or value)


def in_comprehension():
    return [nap() for _ in range(1)]


def größer():
    nap()


async def coroutine():
    await awaited()


async def awaited():
    nap()


def run_coroutine():
    with contextlib.suppress(StopIteration):
        coroutine().send(None)


def in_exec():
    exec("def made_up():\n    nap()\nmade_up()", {"nap": nap})


def in_with():
    class Manager:
        def __enter__(self):
            nap()

        def __exit__(self, *args):
            pass

    with Manager():
        pass


KINDS = [
    lambda: deep(20, nap),
    lambda: deep(90, nap),
    Service().handle,
    Service.static,
    Service.made,
    lambda: list(generator()),
    through_c,
    in_comprehension,
    größer,
    run_coroutine,
    in_exec,
    in_with,
    lambda: deep(300, nap),
]

threads = [threading.Thread(target=kind, daemon=True) for kind in KINDS]
for thread in threads:
    thread.start()
time.sleep(0.2)
frames = sys._current_frames()
log = {
    thread.native_id: (
        thread.ident,
        [
            (frame.f_code.co_name, line, frame.f_code.co_filename)
            for frame, line in traceback.walk_stack(frames[thread.ident])
        ],
    )
    for thread in threads
}
with open(sys.argv[1], "w") as out:
    json.dump(log, out)
print(os.getpid(), flush=True)
time.sleep(float(sys.argv[2]))
