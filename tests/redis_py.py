"""Basic use of redis-py, a real client library, against the real binary: RESP2 and RESP3.

Run by tests/run as `python tests/redis_py.py PATH_TO_SERVER [ARGUMENT...]`. Starts the server on a free
port with a directory of its own and kills it by its pid at the end.
"""

import socket
import subprocess
import sys
import tempfile
import threading
import time

import redis

PATIENCE_SECONDS = 60


class Server:
    """The process under test; its output is kept for the message of a failure."""

    def __init__(self, command):
        self.directory = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), "--dir", self.directory.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self.ready = threading.Event()
        threading.Thread(target=self._collect, daemon=True).start()
        if not self.ready.wait(PATIENCE_SECONDS) or self.process.poll() is not None:
            self.stop()
            sys.exit("the server did not start:\n" + "\n".join(self.lines))

    def _collect(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if "ready on " in line or "Ready to accept" in line:
                self.ready.set()
        self.ready.set()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"


def strings(r):
    assert r.set("a", "1") is True
    assert r.get("a") == b"1"
    assert r.get("missing") is None
    assert r.incr("a") == 2 and r.incrby("a", 40) == 42 and r.decr("a") == 41
    assert r.incrbyfloat("f", 1.5) == 1.5
    assert r.append("s", "abc") == 3 and r.strlen("s") == 3 and r.getrange("s", 1, 2) == b"bc"
    assert r.set("a", "x", nx=True) is None and r.set("new", "x", nx=True) is True
    assert r.set("a", "y", get=True) == b"41"
    assert r.mset({"k1": "v1", "k2": "v2", "k3": "v3"}) is True
    assert r.mget("k1", "missing", "k3") == [b"v1", None, b"v3"]
    assert r.setbit("bits", 7, 1) == 0 and r.bitcount("bits") == 1


def expiry(r):
    r.set("t", "1", ex=100)
    assert 0 < r.ttl("t") <= 100 and 0 < r.pttl("t") <= 100_000
    assert r.persist("t") == 1 and r.ttl("t") == -1
    assert r.expire("t", 50) == 1 and r.ttl("missing") == -2
    assert r.pexpire("t", 1) == 1
    eventually("t expires", lambda: r.get("t") is None)


def keys(r):
    r.flushall()
    names = {f"name:{index}".encode() for index in range(500)}
    for name in names:
        r.set(name, "x")
    assert r.dbsize() == 500
    assert set(r.scan_iter(match="name:*", count=50)) == names
    assert set(r.keys("name:1*")) == {name for name in names if name.startswith(b"name:1")}
    assert r.exists("name:1", "name:2", "missing") == 2
    assert r.type("name:1") in (b"string", "string")
    assert r.delete("name:1", "name:2", "missing") == 2
    assert r.unlink("name:3") == 1
    assert r.dbsize() == 497
    assert r.randomkey() in names
    payload = r.dump("name:4")
    assert r.restore("copy", 0, payload) and r.get("copy") == b"x"
    assert r.flushdb() is True and r.dbsize() == 0


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for index in range(10_000):
            pipe.set(f"p{index}", index).get(f"p{index}")
        replies = pipe.execute()
    assert replies[0::2] == [True] * 10_000
    assert [int(value) for value in replies[1::2]] == list(range(10_000))


def transactions(r):
    with r.pipeline(transaction=True) as pipe:
        replies = pipe.set("{tag}a", 1).incr("{tag}a").get("{tag}a").execute()
    assert replies == [True, 2, b"2"]

    def double(pipe):
        value = int(pipe.get("{tag}a"))
        pipe.multi()
        pipe.set("{tag}a", value * 2)

    assert r.transaction(double, "{tag}a") == [True]
    assert r.get("{tag}a") == b"4"
    with r.pipeline() as pipe:
        pipe.watch("{tag}a")
        r.set("{tag}a", "other")
        pipe.multi()
        pipe.set("{tag}a", "lost")
        try:
            pipe.execute()
            raise AssertionError("a watched key was changed, and yet the transaction ran")
        except redis.WatchError:
            pass
    assert r.get("{tag}a") == b"other"


def entries_of(reply, name):
    """Ids of what XREAD and XREADGROUP return for a stream, in whatever shape the protocol has."""
    entries = dict(reply)[name] if reply else []
    if entries and isinstance(entries[0], list):
        entries = entries[0]
    return [entry_id for entry_id, _ in entries]


def streams(r):
    ids = [r.xadd("s", {"n": str(n), "same": "x"}) for n in range(5)]
    assert r.xlen("s") == 5 and ids == sorted(ids)
    assert r.xrange("s", min=ids[1], max=ids[3]) == [
        (ids[n], {b"n": str(n).encode(), b"same": b"x"}) for n in (1, 2, 3)
    ]
    assert [entry_id for entry_id, _ in r.xrevrange("s", count=2)] == [ids[4], ids[3]]
    assert entries_of(r.xread({"s": ids[2]}), b"s") == ids[3:]
    assert not r.xread({"s": "$"}, block=1)
    assert r.xgroup_create("s", "group", id="0") is True
    assert entries_of(r.xreadgroup("group", "one", {"s": ">"}, count=3), b"s") == ids[:3]
    assert entries_of(r.xreadgroup("group", "two", {"s": ">"}, block=1), b"s") == ids[3:]
    pending = r.xpending("s", "group")
    assert pending["pending"] == 5 and len(pending["consumers"]) == 2, pending
    assert r.xack("s", "group", ids[0]) == 1
    assert [p["message_id"] for p in r.xpending_range("s", "group", "-", "+", 10)] == ids[1:]
    claimed = r.xclaim("s", "group", "two", 0, [ids[1]])
    assert [entry_id for entry_id, _ in claimed] == [ids[1]]
    cursor, claimed, deleted = r.xautoclaim("s", "group", "one", 0)
    assert [entry_id for entry_id, _ in claimed] == ids[1:] and not deleted
    assert r.xinfo_stream("s")["length"] == 5
    assert [group["pending"] for group in r.xinfo_groups("s")] == [4]
    assert sum(consumer["pending"] for consumer in r.xinfo_consumers("s", "group")) == 4
    assert len(r.xinfo_stream("s", full=True)["groups"]) == 1
    assert r.xdel("s", ids[0]) == 1 and r.xtrim("s", maxlen=2, approximate=False) == 2
    assert r.xgroup_destroy("s", "group") in (1, True)
    waiting = threading.Thread(target=lambda: heard.append(r.xread({"s": "$"}, block=0)))
    heard = []
    waiting.start()
    eventually("it waits", lambda: r.info("clients")["blocked_clients"] == 1)
    last = r.xadd("s", {"n": "last"})
    waiting.join()
    assert entries_of(heard[0], b"s") == [last]


def messages(r):
    listener = r.pubsub()
    listener.subscribe("news", "sport")
    listener.psubscribe("n*")
    for _ in range(3):
        assert listener.get_message(timeout=PATIENCE_SECONDS)["type"] in ("subscribe", "psubscribe")
    with r.pipeline(transaction=True) as pipe:
        pipe.set("headline", "one")
        pipe.publish("news", "one")
        assert pipe.execute() == [True, 2]
    heard = [listener.get_message(timeout=PATIENCE_SECONDS) for _ in range(2)]
    assert sorted(one["type"] for one in heard) == ["message", "pmessage"], heard
    assert all(one["data"] in (b"one", "one") for one in heard), heard
    assert r.publish("sport", b"\x00\xff") == 1
    assert listener.get_message(timeout=PATIENCE_SECONDS)["data"] == b"\x00\xff"
    assert dict(r.pubsub_numsub("news", "none")) in ({b"news": 1, b"none": 0}, {"news": 1, "none": 0})
    listener.unsubscribe()
    listener.punsubscribe()
    listener.close()


def connection(r):
    assert r.ping() is True and r.echo("hello") == b"hello"
    assert r.client_setname("tester") is True
    clients = r.client_list()
    assert any(client["name"] == "tester" for client in clients), clients
    assert r.client_id() in [int(client["id"]) for client in clients]
    assert r.config_get("maxmemory") == {"maxmemory": "0"}
    assert r.config_set("maxmemory-policy", "noeviction") is True
    info = r.info()
    assert "used_memory" in info and "connected_clients" in info and "redis_version" in info, info
    assert r.info("keyspace")["db0"]["keys"] == r.dbsize()
    assert len(r.time()) == 2
    try:
        r.execute_command("NOSUCHCOMMAND")
        raise AssertionError("an unknown command was accepted")
    except redis.ResponseError as error:
        assert "unknown command" in str(error), error


def databases(r, port, protocol):
    other = redis.Redis(port=port, db=3, protocol=protocol)
    other.set("only-here", "3")
    assert r.get("only-here") is None and other.dbsize() == 1
    other.flushdb()


def users(port, protocol):
    r = redis.Redis(port=port, protocol=protocol, decode_responses=True)
    r.acl_setuser(
        "worker",
        enabled=True,
        passwords=["+secret"],
        categories=["+@read", "+@connection"],
        commands=["+set"],
        keys=["job:*"],
        channels=["news:*"],
        selectors=[("+incrby", "~count:*")],
    )
    known = r.acl_getuser("worker")
    assert "on" in known["flags"] and known["keys"] == ["~job:*"], known
    assert known["channels"] == ["&news:*"] and len(known["selectors"]) == 1, known
    assert r.acl_users() == ["default", "worker"] and r.acl_whoami() == "default"
    assert "string" in r.acl_cat() and "get" in r.acl_cat("string")
    assert len(r.acl_genpass()) == 64 and len(r.acl_genpass(128)) == 32
    worker = redis.Redis(port=port, protocol=protocol, username="worker", password="secret")
    assert worker.set("job:1", "x") is True and worker.get("job:1") == b"x"
    assert worker.incr("count:1") == 1
    for denied in (
        lambda: worker.set("other", "x"),
        lambda: worker.publish("news:1", "x"),
        lambda: worker.acl_whoami(),
        lambda: worker.pipeline().set("job:2", "x").execute(),
    ):
        try:
            denied()
            raise AssertionError("what is not allowed was done")
        except redis.exceptions.NoPermissionError as error:
            assert "permissions" in str(error), error
    assert r.acl_dryrun("worker", "get", "job:1") in (True, b"OK", "OK")
    log = r.acl_log()
    assert {entry["username"] for entry in log} == {"worker"} and len(log) == 5, log
    assert r.acl_log_reset()
    try:
        redis.Redis(port=port, protocol=protocol, username="worker", password="wrong").ping()
        raise AssertionError("a wrong password was accepted")
    except redis.exceptions.AuthenticationError:
        pass
    assert r.acl_deluser("worker") == 1 and r.acl_getuser("worker") is None
    assert r.acl_log_reset()


def certificates(folder):
    """A certificate that signs itself, and its key, as `server.crt` and `server.key`."""
    file, key = f"{folder}/server.crt", f"{folder}/server.key"
    words = ["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-newkey", "ec"]
    words += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", file]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(["openssl", *words], check=True, stderr=subprocess.DEVNULL)
    return file, key


def secure(command):
    """The same through TLS, in both protocols."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        file, key = certificates(folder)
        tls = ["--tls-port", str(port), "--tls-cert-file", file, "--tls-key-file", key]
        server = Server([*command, *tls, "--tls-auth-clients", "no"])
        try:
            for protocol in (2, 3):
                r = redis.Redis(
                    port=port,
                    protocol=protocol,
                    socket_timeout=PATIENCE_SECONDS,
                    ssl=True,
                    ssl_ca_certs=file,
                )
                r.flushall()
                for part in (strings, keys, pipelines, transactions, streams, messages):
                    part(r)
                large = bytes(range(256)) * (1 << 16)
                assert r.set("large", large) is True and r.get("large") == large
                print(f"redis-py {redis.__version__}, RESP{protocol}, TLS: ok")
        except BaseException:
            print("--- the server printed:\n" + "\n".join(server.lines) + "\n---", file=sys.stderr)
            raise
        finally:
            server.stop()


def main():
    secure(sys.argv[1:])
    server = Server(sys.argv[1:])
    try:
        for protocol in (2, 3):
            r = redis.Redis(port=server.port, protocol=protocol, socket_timeout=PATIENCE_SECONDS)
            r.flushall()
            for part in (strings, expiry, keys, pipelines, transactions, streams, messages, connection):
                part(r)
            databases(r, server.port, protocol)
            users(server.port, protocol)
            print(f"redis-py {redis.__version__}, RESP{protocol}: ok")
    except BaseException:
        print("--- the server printed:\n" + "\n".join(server.lines) + "\n---", file=sys.stderr)
        raise
    finally:
        server.stop()


if __name__ == "__main__":
    main()
