"""Threads that share two of something, or wait for work that they make: which, says an argument."""

import concurrent.futures
import queue
import random
import sys
import threading
import time

THREADS = 10
until = time.monotonic() + float(sys.argv[2])


def nap():
    time.sleep(0.004)


def ask_semaphore(pool):
    with pool:
        nap()


def taken(pool):
    return pool.get()


def ask_queue(pool):
    one = taken(pool)
    nap()
    pool.put(one)


def semaphore():
    pool = threading.BoundedSemaphore(2)
    run(lambda: (nap(), ask_semaphore(pool)))


def shared_queue():
    pool = queue.LifoQueue()
    for one in range(2):
        pool.put(one)
    submit(lambda: ask_queue(pool))


class Pool:
    """As that of DBUtils: whoever gives one back may take it again before who waited longest."""

    def __init__(self):
        self.free = 2
        self.changed = threading.Condition()

    def take(self):
        with self.changed:
            while not self.free:
                self.changed.wait()
            self.free -= 1

    def give(self):
        with self.changed:
            self.free += 1
            self.changed.notify()


def ask_pool(pool):
    pool.take()
    nap()
    pool.give()


def condition():
    pool = Pool()
    submit(lambda: ask_pool(pool))


def condition_self_fed():
    pool = Pool()
    run(lambda: ask_pool(pool))


def submit(job):
    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        while time.monotonic() < until:
            concurrent.futures.wait([executor.submit(job) for _ in range(4 * THREADS)])


def self_fed(jobs):
    for one in range(3):
        jobs.put(one)

    def serve():
        one = taken(jobs)
        nap()
        jobs.put(one)

    run(serve)


def barrier():
    parties = threading.Barrier(THREADS)
    run(lambda: (time.sleep(random.random() * 0.02), parties.wait()))


def run(step):
    def steps():
        while True:
            step()

    for _ in range(THREADS):
        threading.Thread(target=steps, daemon=True).start()
    time.sleep(max(until - time.monotonic(), 0))


print("ready", flush=True)
{
    "semaphore": semaphore,
    "queue": shared_queue,
    "self_fed": lambda: self_fed(queue.Queue()),
    "simple_self_fed": lambda: self_fed(queue.SimpleQueue()),
    "barrier": barrier,
    "condition": condition,
    "condition_self_fed": condition_self_fed,
}[sys.argv[1]]()
