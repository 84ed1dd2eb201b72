//! Listening sockets: one per core and address, sharing the port.

use crate::limits::ADDRESS_RELEASE_TIME_MAX;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that may wait for their accept.
const BACKLOG: i32 = 1024;

/// Opens a socket that will listen, sharing its port with those of the other cores. Accepted
/// sockets inherit TCP_NODELAY and the keep-alive. Until [`listen`], who connects is refused.
/// Errors: the address is in use by another process, not this machine's, or not allowed.
pub fn bind(address: SocketAddr, keepalive_seconds: u64) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(&socket, keepalive_seconds)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets clients connect.
/// Errors: another process has come to listen there.
pub fn listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)
}

/// Between two tries.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// Lets the kernel probe connections that a listening socket will accept after so much silence; 0
/// never does. Errors: the kernel does not allow it.
pub fn keep_alive(socket: &Socket, seconds: u64) -> io::Result<()> {
    if seconds == 0 {
        return socket.set_keepalive(false);
    }
    let time = Duration::from_secs(seconds);
    let third = time / 3;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(time)
        .with_interval(third.max(Duration::from_secs(1)))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Is the address free? SO_REUSEPORT would let two servers of one user share it unnoticed, so the
/// first thing a starting server does is to bind without it. It does not listen, for no client is
/// to reach it. An address in use is tried again for a second: a killed server's sockets listen
/// until its rings are torn down. Errors: as [`bind`].
pub fn probe(address: SocketAddr) -> io::Result<()> {
    until_released(|| probe_once(address))
}

/// Tries until the address is not in use, for a second at most.
/// Errors: those of the last try.
pub(super) fn until_released(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begin.elapsed() < ADDRESS_RELEASE_TIME_MAX =>
            {
                std::thread::sleep(RELEASE_POLL);
            }
            outcome => return outcome,
        }
    }
}

fn probe_once(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}
