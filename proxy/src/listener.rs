//! One listening socket per data thread, on one address: the kernel spreads new connections over them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait in the kernel until a thread takes them: a burst comes before the first is accepted.
const BACKLOG: i32 = 4096;
/// A client whose machine is gone is noticed after about a minute, however long its request may take.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Sockets that listen on `address`, and where that is: port 0 takes a free port, the same for all.
///
/// # Errors
/// The address is not ours or taken by a process of another user.
pub(crate) fn bind(address: SocketAddr, threads: NonZeroUsize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = listen(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads.get() {
        listeners.push(listen(address)?);
    }
    Ok((address, listeners))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit both, which saves two system calls for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
