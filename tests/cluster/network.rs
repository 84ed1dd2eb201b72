//! A network of a test's own: a namespace for each node, a switch between them, and wires that can
//! be cut in one direction.
//!
//! Root makes it; a test says that it was passed over where it cannot. Clients stay at 127.0.0.1:
//! what they send to a node's port is carried to the node whatever is cut between the nodes. A cut
//! direction is silent: what is sent there goes to a hardware address that nobody has.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// Nobody's.
const NOWHERE: &str = "02:00:00:00:00:99";

/// The network. It is taken down when it is dropped.
pub struct Network {
    name: String,
    /// The first three numbers of its addresses.
    prefix: String,
    nodes: usize,
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Network {
    /// Of so many nodes. None, with the reason printed, where it cannot be had.
    pub fn new(nodes: usize) -> Option<Network> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("rg{}x{number}", process % 100_000);
        let prefix = format!("10.{}.{number}", 128 + process % 100);
        let network = Network { name, prefix, nodes };
        match network.build() {
            Ok(()) => Some(network),
            Err(error) => {
                println!("passed over, as it needs root and network namespaces: {error}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let Network { name, prefix, nodes } = self;
        ip(&format!("link add {name} type bridge"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("addr add {prefix}.254/24 dev {name}"))?;
        for node in 0..*nodes {
            let space = self.space(node);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {space} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {space} master {name} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.address(node)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    /// The name of a node's namespace.
    pub fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> String {
        format!("{}.{}", self.prefix, node + 1)
    }

    /// Clients that connect to this port here are connected to a node's.
    pub fn carry(&self, node: usize, port: u16) {
        let target: SocketAddr =
            format!("{}:{port}", self.address(node)).parse().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        // It ends with the process: the port is no other server's.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let back = (server.try_clone(), client.try_clone());
                std::thread::spawn(move || pass(client, server));
                if let (Ok(server), Ok(client)) = back {
                    std::thread::spawn(move || pass(server, client));
                }
            }
        });
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), self.address(to));
        ip(&format!("-n {space} neigh replace {to} lladdr {NOWHERE} dev eth0 nud permanent"))
            .expect("the network is ours");
    }

    /// It does again.
    pub fn heal(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), self.address(to));
        // Nothing is cut twice, but something may be healed that was not cut.
        let _ = ip(&format!("-n {space} neigh del {to} dev eth0"));
    }

    /// Cuts both directions.
    pub fn part(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Heals both.
    pub fn join(&self, one: usize, other: usize) {
        self.heal(one, other);
        self.heal(other, one);
    }

    /// Heals everything.
    pub fn heal_all(&self) {
        for one in 0..self.nodes {
            (0..one).for_each(|other| self.join(one, other));
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let space = self.space(node);
            // The namespace may last as long as a socket in it.
            let _ = ip(&format!("link del {space}"));
            let _ = ip(&format!("netns del {space}"));
        }
        let _ = ip(&format!("link del {}", self.name));
    }
}
