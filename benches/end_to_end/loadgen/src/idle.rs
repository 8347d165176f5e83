//! Clients that ask once and then stay: what does one cost that does nothing?

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::socket;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    clients: usize,
}

/// Prints a line once all clients are connected and were answered; keeps them until standard
/// input ends.
pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut clients = Vec::with_capacity(arguments.clients);
    for number in 0..arguments.clients {
        let socket = Socket::new(Domain::for_address(arguments.target), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(socket::source(number), 0).into())?;
        socket.connect(&arguments.target.into())?;
        let mut client = TcpStream::from(socket);
        client.write_all(b"*1\r\n$4\r\nPING\r\n")?;
        let mut reply = [0; 7];
        client.read_exact(&mut reply)?;
        if &reply != b"+PONG\r\n" {
            let reply = reply.escape_ascii();
            return Err(io::Error::other(format!(
                "client {number} was answered {reply}"
            )));
        }
        clients.push(client);
    }
    println!("{}", json!({ "idle": clients.len() }));
    io::stdin().lock().skip_until(0)?;
    Ok(json!({ "ended": clients.len() }))
}
