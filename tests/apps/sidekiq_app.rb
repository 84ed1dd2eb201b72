# Sidekiq: jobs that work, fail and come back, are late, and what its API says of them.
require "sidekiq"
require "sidekiq/api"
require "tempfile"
require "sidekiq/cli"

URL = ENV.fetch("REDIS_URL")
Redis.sadd_returns_boolean = false if Redis.respond_to?(:sadd_returns_boolean=)
Sidekiq.configure_client { |config| config.redis = { url: URL } }
Sidekiq.configure_server do |config|
  config.redis = { url: URL }
  config.options[:poll_interval_average] = 1 if config.respond_to?(:options)
end

class Add
  include Sidekiq::Worker

  def perform(a, b)
    Sidekiq.redis { |r| r.incrby("sum", a + b) }
  end
end

class FailsOnce
  include Sidekiq::Worker
  sidekiq_options retry: 3
  sidekiq_retry_in { 1 }

  def perform
    tries = Sidekiq.redis { |r| r.incr("tries") }
    raise "as it should" if tries == 1
  end
end

# The file is loaded by the worker too.
return if $PROGRAM_NAME != __FILE__

def eventually(what)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
  until yield
    raise "never happened: #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    Thread.pass
  end
end

def number(key) = Sidekiq.redis { |r| r.get(key).to_i }

log = Tempfile.new("sidekiq")
worker = spawn("sidekiq", "-r", File.expand_path(__FILE__), "-c", "2", out: log, err: log, in: "/dev/null")
begin
  10.times { |n| Add.perform_async(n, n) }
  Add.perform_bulk([[1, 2], [3, 4]])
  eventually("the sum") { number("sum") == 100 }
  FailsOnce.perform_async
  Add.perform_in(1, 50, 50)
  eventually("it is scheduled or done") { Sidekiq::ScheduledSet.new.size == 1 || number("sum") == 200 }
  eventually("the late one") { number("sum") == 200 }
  eventually("the second try") { number("tries") == 2 }
  eventually("counts") { Sidekiq::Stats.new.then { |stats| stats.processed >= 15 && stats.failed == 1 } }
  eventually("the process shows") { Sidekiq::ProcessSet.new.size == 1 }
  waiting = Add.perform_in(3600, 1, 1)
  raise "not found" unless Sidekiq::ScheduledSet.new.find_job(waiting).delete
rescue StandardError
  warn(File.read(log.path))
  raise
ensure
  Process.kill("TERM", worker)
  Process.wait(worker)
end
