//! Listening to one sentinel, over connections that count for no node: asking it for the
//! primary and the replicas, and being told of a failover the moment it is made
//! (`+switch-master`).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::probe::{Pace, read_value};
use crate::config::{Backend, Secret};
use crate::net;
use crate::resp::{self, Value};

/// What a sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its place in the settings' list, and its address.
    pub from: String,
    /// What it knows; `None` if it cannot be asked.
    pub view: Result<View, String>,
}

/// The deployment as a sentinel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The configuration with the higher epoch is the later one.
    pub epoch: i64,
    /// Where the primary is.
    pub primary: String,
    /// Where the replicas are.
    pub replicas: Vec<String>,
}

/// How a sentinel is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelSpec {
    /// Where it is.
    pub address: String,
    /// What it calls the primary.
    pub master: String,
    /// As whom it is asked.
    pub username: Option<String>,
    /// The password for it.
    pub password: Option<Secret>,
    /// For everything that it is asked.
    pub timeout: Duration,
}

impl SentinelSpec {
    /// The sentinel at this address, by the settings of the backend.
    pub fn new(address: String, config: &Backend, timeout: Duration) -> SentinelSpec {
        SentinelSpec {
            address,
            master: config.sentinel_master.clone().unwrap_or_default(),
            username: config.sentinel_username.clone(),
            password: config.sentinel_password.clone(),
            timeout,
        }
    }
}

/// Tells what the sentinel says, for as long as somebody listens.
pub async fn listen(spec: SentinelSpec, words: mpsc::Sender<Word>, mut pace: Pace) {
    loop {
        let Err(why) = converse(&spec, &words, &mut pace).await else {
            return;
        };
        let word = Word {
            from: spec.address.clone(),
            view: Err(why),
        };
        if words.send(word).await.is_err() {
            return;
        }
        let pause = *pace.borrow_and_update();
        sleep(pause.max(Duration::from_millis(100))).await;
    }
}

/// One connection asks, another is subscribed. Ends with an error when one of them does.
async fn converse(
    spec: &SentinelSpec,
    words: &mpsc::Sender<Word>,
    pace: &mut Pace,
) -> Result<(), String> {
    let mut asking = Line::open(spec).await?;
    let mut listening = Line::open(spec).await?;
    let channel: &[&str] = &["SUBSCRIBE", "+switch-master"];
    listening.within(spec.timeout, channel).await?;
    loop {
        let view = asking.view(spec).await?;
        let word = Word {
            from: spec.address.clone(),
            view: Ok(view),
        };
        if words.send(word).await.is_err() {
            return Ok(());
        }
        let pause = *pace.borrow_and_update();
        tokio::select! {
            () = sleep(pause) => {}
            _ = pace.changed() => {}
            // Whatever it is about: what follows from it is asked at once.
            told = read_value(&mut listening.socket, &mut listening.received) => {
                told?;
            }
        }
    }
}

/// A connection to a sentinel.
struct Line {
    socket: net::Stream,
    received: Vec<u8>,
}

impl Line {
    async fn open(spec: &SentinelSpec) -> Result<Line, String> {
        let options = net::DialOptions {
            timeout: spec.timeout,
            keepalive: Duration::from_secs(15),
            user_timeout: spec.timeout * 2,
        };
        let socket = net::dial(&spec.address, &options).await;
        let mut line = Line {
            socket: socket.map_err(|error| error.to_string())?,
            received: Vec::new(),
        };
        if let Some(password) = &spec.password {
            let mut login: Vec<&[u8]> = vec![b"AUTH"];
            login.extend(spec.username.as_deref().map(str::as_bytes));
            login.push(password.expose());
            line.within(spec.timeout, &login).await?;
        }
        Ok(line)
    }

    /// One question and its answer.
    async fn within<A: AsRef<[u8]>>(
        &mut self,
        patience: Duration,
        question: &[A],
    ) -> Result<Value, String> {
        let mut request = Vec::new();
        resp::encode_command(question, &mut request);
        let asked = async {
            let sent = self.socket.write_all(&request).await;
            sent.map_err(|error| error.to_string())?;
            read_value(&mut self.socket, &mut self.received).await
        };
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if answer.is_error() => {
                Err(answer.as_str().unwrap_or("an error").to_owned())
            }
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {patience:?}")),
        }
    }

    async fn view(&mut self, spec: &SentinelSpec) -> Result<View, String> {
        let patience = spec.timeout;
        let primary = self
            .within(patience, &["SENTINEL", "MASTER", &spec.master[..]])
            .await?;
        // `REPLICAS` since 5.0; the old name is understood by all.
        let replicas = self
            .within(patience, &["SENTINEL", "SLAVES", &spec.master[..]])
            .await?;
        read_view(&primary, &replicas).ok_or_else(|| "an answer that is not one".to_owned())
    }
}

fn read_view(primary: &Value, replicas: &Value) -> Option<View> {
    let address = |node: &Value| {
        let host = node.get("ip")?.as_str()?;
        let port: u16 = node.get("port")?.as_str()?.parse().ok()?;
        let is_v6 = host.contains(':');
        (!host.is_empty() && port != 0).then(|| match is_v6 {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        })
    };
    Some(View {
        epoch: primary.get("config-epoch")?.as_str()?.parse().ok()?,
        primary: address(primary)?,
        replicas: replicas.as_array()?.iter().filter_map(address).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(fields: &[(&str, &str)]) -> Value {
        let flat = fields
            .iter()
            .flat_map(|(key, value)| [Value::bulk(*key), Value::bulk(*value)]);
        Value::array(flat.collect::<Vec<_>>())
    }

    #[test]
    fn a_view_is_read_and_nonsense_is_none() {
        let primary = node(&[("ip", "10.0.0.1"), ("port", "6379"), ("config-epoch", "7")]);
        let replicas = Value::array([
            node(&[("ip", "::1"), ("port", "6380")]),
            node(&[("ip", ""), ("port", "0")]),
        ]);
        assert_eq!(
            read_view(&primary, &replicas),
            Some(View {
                epoch: 7,
                primary: "10.0.0.1:6379".into(),
                replicas: vec!["[::1]:6380".into()],
            })
        );
        for odd in [
            Value::null(),
            node(&[("ip", "h"), ("port", "x"), ("config-epoch", "7")]),
            node(&[("ip", "h"), ("port", "1")]),
        ] {
            assert_eq!(read_view(&odd, &replicas), None, "{odd:?}");
        }
    }
}
