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
    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        while time.monotonic() < until:
            concurrent.futures.wait([executor.submit(ask_queue, pool) for _ in range(THREADS)])


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
}[sys.argv[1]]()
