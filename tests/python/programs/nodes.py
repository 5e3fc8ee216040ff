"""Prints where the types are that a context is made of; leaves no thread with a context."""

import contextvars
import gc
import time


def fill():
    for number in range(40):
        contextvars.ContextVar(str(number)).set(0)


context = contextvars.Context()
context.run(fill)
types = {}
todo = [context]
while todo:
    for each in gc.get_referents(todo.pop()):
        if type(each).__name__.startswith("hamt"):
            types[type(each).__name__] = id(type(each))
            todo.append(each)
print(types["hamt_bitmap_node"], types["hamt_array_node"], flush=True)
time.sleep(30)
