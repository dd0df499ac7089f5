//! What all adapters do to sockets alike: look names up, set options.
//!
//! Works on plain sockets of the operating system. Does not know any runtime,
//! and does not wait.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use millpond_driver::{SocketOptions, Target};
use socket2::{SockRef, TcpKeepalive};

/// Asks the system's resolver. Blocks: call it on a thread made for that.
pub(super) fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// The answer to a kind of socket this system, or this version, does not have.
pub(super) fn unsupported(target: &Target) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("cannot connect to {target:?} here"))
}

/// Sets the options of a connected TCP socket.
///
/// An option refused, because the system does not know it or the peer has gone
/// already, is no error: the socket works without, and a dead one says so when
/// it is used.
pub(super) fn tune(socket: SockRef<'_>, options: &SocketOptions) {
    let _ = socket.set_tcp_nodelay(options.nodelay);
    if let Some(keepalive) = &options.keepalive {
        let probes = TcpKeepalive::new().with_time(whole_seconds(keepalive.idle));
        #[cfg(any(
            target_os = "android",
            target_os = "freebsd",
            target_os = "ios",
            target_os = "linux",
            target_os = "macos",
            target_os = "netbsd",
            target_os = "windows",
        ))]
        let probes = probes
            .with_interval(whole_seconds(keepalive.interval))
            .with_retries(keepalive.retries.clamp(1, 127));
        let _ = socket.set_tcp_keepalive(&probes);
    }
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Some(timeout) = options.user_timeout {
        // To the kernel 0 means its own default, which is a quarter of an hour.
        let _ = socket.set_tcp_user_timeout(Some(timeout.max(Duration::from_millis(1))));
    }
}

/// Within the range kernels accept, which count keepalive in 1 to 32 767 s.
fn whole_seconds(time: Duration) -> Duration {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(seconds.clamp(1, 32_767))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn tuned(options: &SocketOptions) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(SockRef::from(&stream), options);
        stream
    }

    #[test]
    fn every_option_reaches_the_socket() {
        let mut options = SocketOptions::default();
        let keepalive = options.keepalive.as_mut().unwrap();
        keepalive.idle = Duration::from_secs(7);
        keepalive.interval = Duration::from_secs(2);
        keepalive.retries = 4;
        options.user_timeout = Some(Duration::from_millis(1_500));

        let stream = tuned(&options);

        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn options_switched_off_stay_off() {
        let mut options = SocketOptions::default();
        options.nodelay = false;
        options.keepalive = None;
        options.user_timeout = None;

        let stream = tuned(&options);

        let socket = SockRef::from(&stream);
        assert!(!socket.tcp_nodelay().unwrap());
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn values_out_of_the_kernels_range_are_rounded_into_it() {
        let mut options = SocketOptions::default();
        let keepalive = options.keepalive.as_mut().unwrap();
        keepalive.idle = Duration::from_millis(2_001);
        keepalive.interval = Duration::ZERO;
        keepalive.retries = 1_000;
        options.user_timeout = Some(Duration::from_nanos(1));

        let stream = tuned(&options);

        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(3));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 127);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(1)));
    }
}
