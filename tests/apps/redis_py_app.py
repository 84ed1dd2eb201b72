"""redis-py's locks, transactions and pub/sub, blocking and asyncio, in RESP2 and RESP3."""

import asyncio
import os
import threading

import redis
import redis.asyncio
from parts import PATIENCE_SECONDS, eventually
from redis.exceptions import LockNotOwnedError

URL = os.environ["REDIS_URL"]


def locks(r):
    lock = r.lock("lock", timeout=30)
    other = r.lock("lock", timeout=30, blocking_timeout=0.05)
    assert lock.acquire() and lock.locked() and lock.owned()
    assert not other.acquire()
    assert lock.extend(30) and 30_000 < r.pttl("lock") <= 60_000
    assert lock.reacquire() and r.pttl("lock") <= 30_000
    lock.release()
    assert other.acquire()
    r.set("lock", "a thief")
    try:
        other.release()
        raise AssertionError("a lock that is lost was released")
    except LockNotOwnedError:
        pass
    r.delete("lock", "count")

    def count():
        mine = redis.Redis.from_url(URL, protocol=r.connection_pool.connection_kwargs["protocol"])
        for _ in range(25):
            with mine.lock("lock", timeout=60, sleep=0.001):
                mine.set("count", int(mine.get("count") or 0) + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert r.get("count") == b"100"


def messages(r):
    listener = r.pubsub(ignore_subscribe_messages=True)
    heard = []
    listener.subscribe(**{"news": lambda one: heard.append(("news", one["data"]))})
    listener.psubscribe(**{"n?ws": lambda one: heard.append(("pattern", one["data"]))})
    listener.ssubscribe(**{"shard": lambda one: heard.append(("shard", one["data"]))})
    thread = listener.run_in_thread(sleep_time=0.01, daemon=True)
    eventually("it has subscribed", lambda: r.pubsub_numpat() == 1)
    eventually("so here", lambda: dict(r.pubsub_shardnumsub("shard")) == {b"shard": 1})
    for n in range(100):
        assert r.publish("news", n) == 2
    assert r.execute_command("SPUBLISH", "shard", "one") == 1
    eventually("all are heard", lambda: len(heard) == 201)
    for name in ("news", "pattern"):
        assert [data for kind, data in heard if kind == name] == [b"%d" % n for n in range(100)]
    assert [data for kind, data in heard if kind == "shard"] == [b"one"]
    thread.stop()
    thread.join()


async def asynchronous(protocol):
    r = redis.asyncio.from_url(URL, protocol=protocol)
    async with r.lock("lock", timeout=30):
        assert not await r.lock("lock", blocking_timeout=0.01).acquire()
    async with r.pubsub() as listener:
        await listener.subscribe("news")
        await listener.get_message(timeout=PATIENCE_SECONDS)

        async def publish():
            for n in range(10):
                await r.publish("news", n)

        task = asyncio.create_task(publish())
        heard = [await listener.get_message(timeout=PATIENCE_SECONDS) for _ in range(10)]
        await task
        assert [int(one["data"]) for one in heard] == list(range(10)), heard
    popping = asyncio.create_task(r.blpop("{q}list", timeout=PATIENCE_SECONDS))
    await r.rpush("{q}list", "x")
    assert list(await popping) == [b"{q}list", b"x"]
    await r.aclose()


def caching():
    from redis.cache import CacheConfig

    cached = redis.Redis.from_url(URL, protocol=3, cache_config=CacheConfig())
    other = redis.Redis.from_url(URL)
    other.set("cached", 1)
    assert [cached.get("cached") for _ in range(2)] == [b"1", b"1"]
    other.set("cached", 2)
    eventually("the cache is told", lambda: cached.get("cached") == b"2")


def main():
    for protocol in (2, 3):
        r = redis.Redis.from_url(URL, protocol=protocol, socket_timeout=PATIENCE_SECONDS)
        r.flushall()
        locks(r)
        messages(r)
        asyncio.run(asynchronous(protocol))
    version = tuple(int(part) for part in r.info("server")["redis_version"].split("."))
    if version >= (7, 4):
        caching()


if __name__ == "__main__":
    main()
