"""Celery: broker and results in one server, a worker with two processes, and beat."""

import os
import sys

import redis
from celery import Celery, chain, chord, group
from parts import eventually, spawn

URL = os.environ["REDIS_URL"]

app = Celery("celery_app", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
    beat_schedule={"tick": {"task": "celery_app.tick", "schedule": 0.2}},
    beat_schedule_filename=os.environ.get("BEAT_FILE", "beat"),
)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise ValueError("as it should")


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def tick():
    return redis.Redis.from_url(URL).incr("ticks")


def main():
    celery = [sys.executable, "-m", "celery", "-A", "celery_app"]
    worker = spawn([*celery, "worker", "--concurrency", "2", "--loglevel", "info", "-n", "w@here"])
    beat = spawn([*celery, "beat", "--loglevel", "info", "--max-interval", "1"])
    try:
        assert add.delay(2, 3).get(timeout=60) == 5
        assert chain(add.s(1, 1), add.s(10))().get(timeout=60) == 12
        sums = group(add.s(n, n) for n in range(20))()
        assert sums.get(timeout=60) == [2 * n for n in range(20)]
        assert chord((add.s(n, n) for n in range(20)), total.s())().get(timeout=60) == 380
        try:
            fail.delay().get(timeout=60)
            raise AssertionError("a task that fails has succeeded")
        except ValueError as error:
            assert str(error) == "as it should", error
        assert third_time.delay().get(timeout=60) == 2
        later = add.apply_async((4, 5), countdown=0.5)
        assert not later.ready() and later.get(timeout=60) == 9
        assert app.control.ping(timeout=60, limit=1) == [{"w@here": {"ok": "pong"}}]
        inspect = app.control.inspect(["w@here"], timeout=60, limit=1)
        assert inspect.registered()["w@here"]
        never = add.apply_async((0, 0), countdown=3600)
        eventually("it waits", lambda: inspect.scheduled()["w@here"])
        never.revoke()
        eventually("it is revoked", lambda: never.id in inspect.revoked()["w@here"])
        r = redis.Redis.from_url(URL)
        eventually("beat ticks", lambda: int(r.get("ticks") or 0) >= 3)
        result = add.delay(1, 2)
        result.get(timeout=60)
        assert 0 < r.ttl(f"celery-task-meta-{result.id}") <= 600
        result.forget()
        assert r.get(f"celery-task-meta-{result.id}") is None
    finally:
        beat.stop()
        worker.stop()


if __name__ == "__main__":
    # Tasks carry the name of this module as the worker knows it.
    import celery_app

    celery_app.main()
