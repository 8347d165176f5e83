//! A client over anything that bytes go through: TLS, a Unix socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::authority::Files;
use crate::support::{DEADLINE, encode, reply_length};

/// A blocking client.
pub struct Talker<S> {
    pub stream: S,
    unread: Vec<u8>,
}

pub type TlsTalker = Talker<StreamOwned<ClientConnection, TcpStream>>;

impl<S: Read + Write> Talker<S> {
    pub fn new(stream: S) -> Talker<S> {
        Talker {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes the bytes");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    pub fn try_read_reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = reply_length(&self.unread) {
                let rest = self.unread.split_off(length);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            let mut chunk = [0; 64 * 1024];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }

    pub fn try_command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Vec<u8>> {
        self.try_send(encode(arguments))?;
        self.try_read_reply()
    }

    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Vec<u8> {
        self.try_command(arguments).expect("a reply")
    }

    pub fn expect_command<A: AsRef<[u8]>>(&mut self, arguments: &[A], reply: &str) {
        let got = self.command(arguments);
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    pub fn text<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> String {
        String::from_utf8_lossy(&self.command(arguments)).into_owned()
    }
}

pub fn tcp(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn over_unix(path: &Path) -> io::Result<Talker<UnixStream>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(Talker::new(stream))
}

/// What a client trusts and shows.
pub fn config(trusts: &Path, shows: Option<&Files>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusts).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shows {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
            let chain = chain.map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// A TLS client that asks for `name`; the handshake is done when this returns.
pub fn over_tls(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<TlsTalker> {
    secured(tcp(to), config, name)
}

/// The same over a connection that there is already.
pub fn secured(
    mut socket: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<TlsTalker> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config.clone(), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(Talker::new(StreamOwned::new(connection, socket)))
}

/// The certificate that the server has shown.
pub fn shown(talker: &TlsTalker) -> Vec<u8> {
    let chain = talker.stream.conn.peer_certificates().expect("a handshake");
    chain[0].to_vec()
}
