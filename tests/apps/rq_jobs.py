"""What RQ's worker runs."""

import threading


def add(a, b):
    return a + b


def fail():
    raise ValueError("as it should")


def endless():
    threading.Event().wait()
