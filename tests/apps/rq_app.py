"""RQ: a worker with its scheduler; jobs that work, fail, wait for others, are late, and are stopped."""

import os
import sys
from datetime import timedelta

import redis
import rq_jobs
from parts import eventually, spawn
from rq import Queue
from rq.command import send_stop_job_command
from rq.job import Dependency, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

URL = os.environ["REDIS_URL"]


def main():
    r = redis.Redis.from_url(URL)
    queue = Queue(connection=r)
    command = [sys.executable, "-m", "rq.cli", "worker", "--with-scheduler", "--url", URL, "default"]
    worker = spawn(command)
    try:
        jobs = [queue.enqueue(rq_jobs.add, n, n) for n in range(3)]
        last = queue.enqueue(rq_jobs.add, 1, 1, depends_on=Dependency(jobs=jobs))
        eventually("all are done", lambda: last.get_status() == JobStatus.FINISHED)
        assert [job.return_value(refresh=True) for job in jobs] == [0, 2, 4]
        assert last.latest_result().return_value == 2
        failing = queue.enqueue(rq_jobs.fail)
        eventually("it fails", lambda: failing.get_status() == JobStatus.FAILED)
        assert failing.id in FailedJobRegistry(queue=queue)
        assert "as it should" in failing.latest_result().exc_string
        late = queue.enqueue_in(timedelta(seconds=1), rq_jobs.add, 20, 22)
        assert late.id in ScheduledJobRegistry(queue=queue)
        endless = queue.enqueue(rq_jobs.endless)
        eventually("it runs", lambda: endless.get_status() == JobStatus.STARTED)
        send_stop_job_command(r, endless.id)
        eventually("it is stopped", lambda: endless.get_status() == JobStatus.STOPPED)
        eventually("the late one is done", lambda: late.get_status() == JobStatus.FINISHED)
        assert late.return_value(refresh=True) == 42
        one = queue.enqueue(rq_jobs.add, 5, 5, job_id="mine", result_ttl=500)
        eventually("it is done", lambda: one.get_status() == JobStatus.FINISHED)
        assert 0 < r.ttl(one.key) <= 500
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
