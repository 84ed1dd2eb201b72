//! Section `tls`: GET and SET through TLS, beside Redis' own.
//!
//! The client is redis-benchmark, which speaks TLS. It costs about as much as a server does, so on
//! one cpu it is soon the limit of requests per second: the server's cpu per request stands beside
//! them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use super::{Findings, Goal, Limit};
use crate::arm::{Arm, ServerCommand, free_port};
use crate::cpus;
use crate::measure::measurement::Clocks;
use crate::measure::redis_benchmark;
use crate::report::Spread;

use Limit::{AtLeast, AtMost};

/// Requests per second, in times of Redis'; and the cpu of each, as a part of Redis'.
const RATE: f64 = 1.3;
const CPU: f64 = 1.0 / RATE;

/// Requests that tell how many make up the time that is measured, for each of a pipeline.
const TRIAL_REQUESTS: u64 = 10_000;

const KEYS: u64 = 100_000;
const SECONDS: f64 = 3.0;

/// One measurement.
#[derive(Serialize)]
struct Through<'a> {
    kind: &'static str,
    server: &'a str,
    command: &'a str,
    pipeline: usize,
    round: usize,
    requests: u64,
    requests_per_second: f64,
    server_cpu_us_per_request: f64,
    client_cpus: f64,
    foreign_cpus: f64,
}

impl Findings<'_> {
    /// The whole section.
    pub(super) fn tls(&mut self) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|error| format!("a directory: {error}"))?;
        let (certificate, key) = certificate(folder.path())?;
        let tls = format!(
            "--tls-port {{tls-port}} --tls-cert-file {certificate} --tls-key-file {key} \
             --tls-ca-cert-file {certificate} --tls-auth-clients no"
        );
        let servers = [
            self.ringraft("ringraft", &format!("--mode cache --shards 1 --cores 0 {tls}"))?,
            self.redis(&format!("--save '' --appendonly no {tls}"))?,
        ];
        for command in ["get", "set"] {
            for pipeline in [1, 16] {
                let name = format!("tls-{command}-p{pipeline}");
                if self.options.wants(&name) {
                    self.through(&servers, &certificate, command, pipeline, &name)?;
                }
            }
        }
        servers.into_iter().for_each(|server| self.mention(server));
        Ok(())
    }

    /// Measures both servers round by round, and judges.
    fn through(
        &mut self,
        servers: &[ServerCommand; 2],
        certificate: &str,
        command: &str,
        pipeline: usize,
        name: &str,
    ) -> Result<(), String> {
        let mut found: [Vec<(f64, f64)>; 2] = Default::default();
        for round in 0..self.bench.setup.repeats {
            for turn in 0..servers.len() {
                let index = (turn + round) % servers.len();
                let run = (command, pipeline, round);
                found[index].push(self.secure_run(&servers[index], certificate, run)?);
            }
        }
        let [ours, theirs] = found;
        let pairs = || ours.iter().zip(&theirs);
        let rates = Spread::of(pairs().map(|(a, b)| a.0 / b.0));
        let cpu = Spread::of(pairs().map(|(a, b)| a.1 / b.1));
        let us = Spread::of(ours.iter().map(|found| found.1)).median;
        self.goals.push(Goal::new(format!("{name}: requests/s / redis"), rates, AtLeast(RATE)));
        let what = format!("{name}: cpu per request ({us:.2} us) / redis");
        self.goals.push(Goal::new(what, cpu, AtMost(CPU)));
        Ok(())
    }

    /// Requests per second, and the server's cpu per request in microseconds.
    fn secure_run(
        &mut self,
        server: &ServerCommand,
        certificate: &str,
        (command, pipeline, round): (&str, usize, usize),
    ) -> Result<(f64, f64), String> {
        let setup = self.bench.setup.clone();
        let port = free_port()?;
        let arm =
            Arm::start(&server.replaced("{tls-port}", &port.to_string()), Some(&setup.server_cpu))?;
        let send = |command: &str, pipeline: usize, requests: u64| -> Result<f64, String> {
            let mut client = Command::new(redis_benchmark::NAME);
            client.args(["--tls", "--cacert", certificate, "--csv", "-c", "50", "-d", "64"]);
            client.args(["-p", &port.to_string(), "-t", command, "-P", &pipeline.to_string()]);
            client.args(["-r", &KEYS.to_string(), "-n", &requests.to_string()]);
            client.stdin(Stdio::null());
            let output = cpus::on(Some(&setup.client_cpu), || client.output());
            let output = output.map_err(|error| format!("{}: {error}", redis_benchmark::NAME))?;
            redis_benchmark::rate(&String::from_utf8_lossy(&output.stdout))
        };
        // What is read is there, nearly all of it.
        send("set", 16, 4 * KEYS)?;
        let trial = send(command, pipeline, TRIAL_REQUESTS * pipeline as u64)?;
        let seconds = self.options.overrides.seconds.unwrap_or(SECONDS);
        let requests = (trial * seconds) as u64;
        let (before, begin) = (Clocks::read(&arm)?, Instant::now());
        let rate = send(command, pipeline, requests)?;
        let (server, client, foreign) = Clocks::read(&arm)?.since(&before);
        let elapsed = begin.elapsed().as_secs_f64();
        let cost = server * 1e6 / requests as f64;
        self.bench.json.write(&Through {
            kind: "tls",
            server: &arm.name,
            command,
            pipeline,
            round,
            requests,
            requests_per_second: rate,
            server_cpu_us_per_request: cost,
            client_cpus: client / elapsed,
            foreign_cpus: foreign / elapsed,
        })?;
        Ok((rate, cost))
    }
}

/// A certificate that signs itself, and its key: their paths.
fn certificate(folder: &Path) -> Result<(String, String), String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (path("server.crt"), path("server.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-keyout", &key, "-out", &certificate]);
    let output = openssl.output().map_err(|error| format!("openssl: {error}"))?;
    match output.status.success() {
        true => Ok((certificate, key)),
        false => Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_can_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = certificate(folder.path()).expect("openssl");
        for (path, word) in [(certificate, "BEGIN CERTIFICATE"), (key, "PRIVATE KEY")] {
            let text = std::fs::read_to_string(path).expect("it was written");
            assert!(text.contains(word), "{text}");
        }
    }
}
