//! Ports of the loopback interface that stay ours as long as we hold them.
//!
//! Does not listen: who connects to a port that is merely held is refused.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port on 127.0.0.1, held until dropped.
///
/// It is bound to a socket that does not listen, so the kernel gives it to
/// nobody else, neither to listen nor to connect from. A server that sets
/// `SO_REUSEADDR`, as all do, can listen on it, stop and come back.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    pub(crate) fn hold() -> Self {
        let socket = bound(0);
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        Self { number: address.expect("an Internet address").port(), _held: socket }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 with this port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }

    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bound(self.number);
        socket.listen(128).expect("a held port can be listened on");
        socket.into()
    }
}

/// A port on which nobody listens, as long as it is held.
pub fn closed_port() -> Port {
    Port::hold()
}

fn bound(port: u16) -> Socket {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        Ok::<_, std::io::Error>(socket)
    };
    open().unwrap_or_else(|error| panic!("cannot bind port {port} of 127.0.0.1: {error}"))
}
