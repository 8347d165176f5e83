//! What the console does.

use std::time::Duration;

use tokio::sync::oneshot;

use super::show::{map, text};
use super::{Answer, Console, Upgrade};
use crate::admission::pattern;
use crate::command::ServerVersion;
use crate::config::{Change, Override};
use crate::resp::Value;
use crate::session::client_filter::ClientFilter;
use crate::session::{Caller, Kill, Message, Pause};

/// How long a pause is if the caller does not say.
const PAUSE: Duration = Duration::from_secs(10);

impl Console {
    /// `CONFIG GET` and `CONFIG SET`.
    pub(super) fn config(&self, words: &[&str]) -> Answer {
        match words {
            [get, pattern] if get.eq_ignore_ascii_case("get") => {
                let items = self.proxy.settings().items();
                let found = items
                    .iter()
                    .filter(|item| pattern::matches(pattern.as_bytes(), item.key.as_bytes()));
                Ok(map(found
                    .map(|item| (&*item.key, text(&*item.value)))
                    .collect()))
            }
            [set, pairs @ ..] if set.eq_ignore_ascii_case("set") && pairs.len() % 2 == 0 => {
                let pairs = pairs.chunks(2);
                self.set(
                    pairs
                        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
                        .collect(),
                )
            }
            _ => Err("ERR syntax error".to_owned()),
        }
    }

    /// Sets settings, all or none.
    pub(super) fn set(&self, pairs: Vec<(String, String)>) -> Answer {
        let given = pairs.into_iter();
        let given = given.map(|(key, value)| Override { key, value }).collect();
        match self.settings.borrow_mut().set(given) {
            Ok(_) => Ok(Value::simple("OK")),
            Err(refused) => Err(format!("ERR {refused}")),
        }
    }

    /// `CHECK`.
    pub(super) fn check(&self) -> Answer {
        match self.settings.borrow().preview() {
            Ok(changes) => Ok(changed(&changes)),
            Err(refused) => Err(format!("ERR {refused}")),
        }
    }

    /// `RELOAD`.
    pub(super) fn reload(&self, caller: &Caller) -> Answer {
        let by = format!("WEIR RELOAD from {}", caller.address);
        match self.settings.borrow_mut().reload(&by) {
            Ok(changes) => Ok(changed(&changes)),
            Err(refused) => Err(format!("ERR {refused}")),
        }
    }

    /// `KILL`.
    pub(super) async fn kill(&self, caller: &Caller, args: &[Vec<u8>]) -> Answer {
        let mut args = args.to_vec();
        let mut routes: Vec<u16> = (0..self.proxy.routes.len() as u16).collect();
        if args[2].eq_ignore_ascii_case(b"route") {
            routes = vec![self.route(&String::from_utf8_lossy(&args[3]))?];
            args.drain(2..4);
        }
        if args.len() < 4 {
            return Err(
                "ERR expected a filter such as ADDR, LADDR, ID, USER, NAME or MAXAGE \
                        with its value"
                    .to_owned(),
            );
        }
        // The newest server's filters: they are about Weir's own clients.
        let filter = ClientFilter::for_kill(&args, ServerVersion::valkey(9, 0), u32::MAX)
            .map_err(|text| String::from_utf8_lossy(&text).into_owned())?;
        let mut asked = Vec::new();
        for worker in 0..self.proxy.workers() {
            for &route in &routes {
                let (answer, answered) = tokio::sync::oneshot::channel();
                let kill = Kill {
                    filter: filter.clone(),
                    caller: caller.client,
                };
                let message = Message::KillClients {
                    route,
                    kill,
                    answer,
                };
                self.proxy.send(worker, message);
                asked.push(answered);
            }
        }
        let mut killed = 0;
        for answered in asked {
            killed += answered.await.unwrap_or_default();
        }
        Ok(Value::integer(killed as i64))
    }

    /// `PAUSE`.
    pub(super) fn pause(&self, words: &[&str]) -> Answer {
        let (time, words) = match words {
            [first, rest @ ..] if first.parse::<u64>().is_ok() => {
                let millis = first.parse().unwrap_or(u64::MAX);
                (Some(Duration::from_millis(millis)), rest)
            }
            words => (None, words),
        };
        let routes = self.routes_of(words)?;
        let of_route = |route: &u16| self.proxy.routes[*route as usize].settings();
        let longest = routes.iter().map(|it| of_route(it).clients.pause_max);
        let longest = longest.min().unwrap_or_default();
        if time.is_some_and(|time| time > longest) {
            return Err(format!(
                "ERR a pause takes at most {} ms (clients.pause_max)",
                longest.as_millis()
            ));
        }
        let time = time.unwrap_or(PAUSE.min(longest));
        let pause = Pause::of_operator(self.proxy.started.elapsed(), time);
        self.tell_pause(&routes, Some(pause));
        Ok(Value::simple("OK"))
    }

    /// `RESUME`.
    pub(super) fn resume(&self, words: &[&str]) -> Answer {
        let routes = self.routes_of(words)?;
        self.tell_pause(&routes, None);
        Ok(Value::simple("OK"))
    }

    fn routes_of(&self, words: &[&str]) -> Result<Vec<u16>, String> {
        match words {
            [] => Ok((0..self.proxy.routes.len() as u16).collect()),
            [word, name] if word.eq_ignore_ascii_case("route") => Ok(vec![self.route(name)?]),
            _ => Err("ERR syntax error".to_owned()),
        }
    }

    fn tell_pause(&self, routes: &[u16], pause: Option<Pause>) {
        for worker in 0..self.proxy.workers() {
            for &route in routes {
                self.proxy.send(worker, Message::Pause { route, pause });
            }
        }
    }

    /// `DRAIN`.
    pub(super) fn begin_drain(&self, caller: &Caller) -> Answer {
        let by = format!("WEIR DRAIN from {}", caller.address);
        match self.drain.send(by) {
            Ok(()) => Ok(Value::simple("OK")),
            Err(_) => Err("ERR Weir is draining already".to_owned()),
        }
    }
}

impl Console {
    /// `UPGRADE`.
    pub(super) async fn begin_upgrade(&self, caller: &Caller) -> Answer {
        let (answer, answered) = oneshot::channel();
        let by = format!("WEIR UPGRADE from {}", caller.address);
        let ending = || "ERR Weir is draining already".to_owned();
        let sent = self.upgrade.send(Upgrade { by, answer });
        sent.map_err(|_| ending())?;
        match answered.await.map_err(|_| ending())? {
            Ok(pid) => Ok(Value::simple(format!("OK process {pid} takes over"))),
            Err(why) => Err(format!("ERR no upgrade: {why}")),
        }
    }
}

/// What changed, or would.
fn changed(changes: &[Change]) -> Value {
    let shown = changes.iter().map(|change| {
        map(vec![
            ("setting", text(&*change.key)),
            ("from", text(&*change.from)),
            ("to", text(&*change.to)),
            ("changes", text(change.reload.text())),
        ])
    });
    Value::array(shown.collect::<Vec<_>>())
}
