//! Filters of system calls, as container runtimes put them around a process.
#![allow(unsafe_code)] // seccomp(2) has no safe form, nor has what runs between fork and exec

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the kernel's headers tell the numbers of system calls.
const HEADER: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// A filter that the kernel takes.
#[derive(Clone)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// Everything is allowed but some calls, which end with this error.
    pub fn without(calls: &[&str], errno: i32) -> Filter {
        let numbers = numbers();
        let mut filter = Filter::begin();
        for call in calls {
            filter.answer(numbers[*call], libc::SECCOMP_RET_ERRNO | errno as u32);
        }
        filter.end(libc::SECCOMP_RET_ALLOW)
    }

    /// What a profile in docker's format says. Names that this machine's headers do not know are
    /// passed over, and returned.
    pub fn of_profile(path: &Path) -> (Filter, Vec<String>) {
        let text = std::fs::read(path).expect("a profile");
        let profile: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let errno = |value: &serde_json::Value| {
            libc::SECCOMP_RET_ERRNO | value.as_u64().expect("a number") as u32
        };
        let (numbers, mut filter, mut unknown) = (numbers(), Filter::begin(), Vec::new());
        for rule in profile["syscalls"].as_array().expect("rules") {
            let answer = match rule["action"].as_str().expect("a word") {
                "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
                "SCMP_ACT_ERRNO" => errno(&rule["errnoRet"]),
                other => panic!("{other} is not known here"),
            };
            for name in rule["names"].as_array().expect("names") {
                let name = name.as_str().expect("a name");
                match (numbers.get(name), rule["args"].as_array()) {
                    (None, _) => unknown.push(name.to_string()),
                    (Some(&number), None) => filter.answer(number, answer),
                    (Some(&number), Some(arguments)) => {
                        let [argument] = &arguments[..] else { panic!("{name}: one argument") };
                        filter.answer_if(number, argument, answer);
                    }
                }
            }
        }
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        (filter.end(errno(&profile["defaultErrnoRet"])), unknown)
    }

    /// Puts it around what a command starts.
    pub fn confine(&self, command: &mut Command) {
        let program = self.program.clone();
        let enter = move || {
            let filter =
                libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
            // SAFETY: two system calls, both allowed between fork and exec; the program lives as
            // long as the closure.
            let outcome = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const filter,
                )
            };
            if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
    }

    fn begin() -> Filter {
        let mut filter = Filter { program: Vec::new() };
        filter.load(ARCHITECTURE);
        filter.jump_if_equal(AUDIT_ARCH_X86_64, 1, 0);
        filter.give(libc::SECCOMP_RET_KILL_PROCESS);
        filter.load(NUMBER);
        filter
    }

    fn end(mut self, answer: u32) -> Filter {
        self.give(answer);
        self
    }

    fn answer(&mut self, number: u32, answer: u32) {
        self.jump_if_equal(number, 0, 1);
        self.give(answer);
    }

    /// The same if the first argument is as the rule wants it. Its upper half is not looked at.
    fn answer_if(&mut self, number: u32, rule: &serde_json::Value, answer: u32) {
        let number_of = |name: &str| rule[name].as_u64().expect("a number") as u32;
        assert_eq!(rule["index"], 0, "the first argument");
        let (mask, wanted) = match rule["op"].as_str().expect("a word") {
            "SCMP_CMP_EQ" => (u32::MAX, number_of("value")),
            "SCMP_CMP_MASKED_EQ" => (number_of("value"), number_of("valueTwo")),
            other => panic!("{other} is not known here"),
        };
        self.jump_if_equal(number, 0, 5);
        self.load(FIRST_ARGUMENT);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, (0, 0));
        self.jump_if_equal(wanted, 0, 1);
        self.give(answer);
        self.load(NUMBER);
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, (0, 0));
    }

    fn jump_if_equal(&mut self, value: u32, then: u8, otherwise: u8) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, (then, otherwise));
    }

    fn give(&mut self, answer: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, answer, (0, 0));
    }

    fn push(&mut self, code: u32, k: u32, (jt, jf): (u8, u8)) {
        self.program.push(libc::sock_filter { code: code as u16, jt, jf, k });
    }
}

fn numbers() -> BTreeMap<String, u32> {
    let text =
        std::fs::read_to_string(HEADER).expect("the kernel's headers (tests/run installs them)");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#define __NR_"));
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_string(), number.trim().parse().ok()?))
    };
    lines.filter_map(pair).collect()
}
