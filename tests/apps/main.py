"""Applications that use Redis, against a server: `python tests/apps/main.py APPLICATION... -- SERVER [ARGUMENT...]`.

Each application is a program of its own that is told REDIS_URL and fails if something is not as with Redis. The
server is started on a free port with a directory of its own, is emptied between applications, and is killed by its pid at the end.
"""

import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import redis
from redis_py import Server

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_SECONDS = 300

APPLICATIONS = {
    "redis-py": [sys.executable, "redis_py_app.py"],
    "celery": [sys.executable, "celery_app.py"],
    "rq": [sys.executable, "rq_app.py"],
    "bullmq": ["node", "bullmq_app.mjs"],
    "sidekiq": ["ruby", "sidekiq_app.rb"],
}


def run(name, port):
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "BEAT_FILE": os.path.join(directory, "beat"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        result = subprocess.run(
            APPLICATIONS[name],
            cwd=os.environ.get("APPS_NODE_DIR", HERE) if name == "bullmq" else HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )
    return result.returncode == 0


def main():
    split = sys.argv.index("--")
    names, command = sys.argv[1:split], sys.argv[split + 1 :]
    server = Server(command)
    failed = []
    try:
        for name in names:
            begin = time.monotonic()
            redis.Redis(port=server.port).flushall()
            good = run(name, server.port)
            print(f"{name}: {'ok' if good else 'FAILED'}, {time.monotonic() - begin:.1f} s", flush=True)
            failed += [] if good else [name]
    finally:
        if failed:
            print("--- the server printed:\n" + "\n".join(server.lines) + "\n---", file=sys.stderr)
        server.stop()
    sys.exit(f"not as with Redis: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
