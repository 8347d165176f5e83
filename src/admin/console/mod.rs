//! The console: what operators ask and do with `WEIR`, through any Redis client.
//!
//! Questions come from sessions ([`crate::session::Asked`]) and from the admin port
//! ([`server`]); whoever puts one has been let in already. They are answered on the main
//! thread, several at a time. What changes something leaves an audit line: who, from
//! where, what, and with what result.

mod act;
mod doctor;
mod hot_keys;
mod server;
mod show;
mod slow_log;
mod table;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use server::Server;
pub use table::{ROWS, Row, Sub, find, help, markdown};

use super::settings::Keeper;
use crate::metrics::{Event, EventKind};
use crate::resp::Value;
use crate::session::{Asked, Caller, Proxy};

/// What the console works with.
pub struct Console {
    proxy: Arc<Proxy>,
    settings: Rc<RefCell<Keeper>>,
    /// Told who wants Weir to drain.
    drain: mpsc::UnboundedSender<String>,
    upgrade: mpsc::UnboundedSender<Upgrade>,
}

/// An order to have another process take this one's place.
#[derive(Debug)]
pub struct Upgrade {
    /// Who wants it.
    pub by: String,
    /// The new process's id, or why there is none; nobody may wait for it.
    pub answer: oneshot::Sender<Result<u32, String>>,
}

/// An error's text without its `-`.
type Answer = Result<Value, String>;

impl Console {
    /// A console of this process.
    pub fn new(
        proxy: Arc<Proxy>,
        settings: Rc<RefCell<Keeper>>,
        drain: mpsc::UnboundedSender<String>,
        upgrade: mpsc::UnboundedSender<Upgrade>,
    ) -> Rc<Console> {
        Rc::new(Console {
            proxy,
            settings,
            drain,
            upgrade,
        })
    }

    /// Answers what sessions ask, for as long as the process runs. Must be called on a
    /// local runtime.
    pub async fn run(self: Rc<Self>, mut questions: mpsc::Receiver<Asked>) {
        while let Some(asked) = questions.recv().await {
            let console = self.clone();
            tokio::task::spawn_local(async move {
                let answer = console.answer(&asked.caller, &asked.args).await;
                // Whoever asked may have gone.
                let _ = asked.answer.send(answer);
            });
        }
    }

    /// Answers one command, `WEIR` included.
    pub async fn answer(&self, caller: &Caller, args: &[Vec<u8>]) -> Value {
        let Some(name) = args.get(1) else {
            return error("ERR wrong number of arguments for 'weir' command");
        };
        let Some(row) = find(name) else {
            let shown: String = name.escape_ascii().to_string().chars().take(128).collect();
            return error(&format!("ERR unknown subcommand '{shown}'. Try WEIR HELP."));
        };
        let arguments = &args[2..];
        let (least, most) = row.arguments;
        if !(least..=most).contains(&arguments.len()) {
            let name = row.name.to_ascii_lowercase();
            return error(&format!(
                "ERR wrong number of arguments for 'weir|{name}' command"
            ));
        }
        let changes = row.changes || is_change(row.sub, arguments);
        let answer = self.run_row(row, caller, args).await;
        if changes {
            self.audit(row, caller, arguments, &answer);
        }
        answer.unwrap_or_else(|text| error(&text))
    }

    async fn run_row(&self, row: &Row, caller: &Caller, args: &[Vec<u8>]) -> Answer {
        let rest: Vec<&str> = args[2..]
            .iter()
            .map(|arg| std::str::from_utf8(arg))
            .collect::<Result<_, _>>()
            .map_err(|_| "ERR arguments have to be text in UTF-8".to_owned())?;
        match row.sub {
            Sub::Help => Ok(Value::array(
                help().into_iter().map(Value::simple).collect::<Vec<_>>(),
            )),
            Sub::Clients => self.clients(&rest).await,
            Sub::Pools => Ok(self.pools()),
            Sub::Nodes => Ok(self.nodes()),
            Sub::Limits => self.limits(&rest),
            Sub::Shed => Ok(self.shed()),
            Sub::Doctor => Ok(self.doctor()),
            Sub::Events => self.events(&rest),
            Sub::Hotkeys => self.hot_keys(&rest),
            Sub::Slowlog => self.slow_log(&rest),
            Sub::Record => self.record(&rest),
            Sub::Config => self.config(&rest),
            Sub::Check => self.check(),
            Sub::Reload => self.reload(caller),
            Sub::Kill => self.kill(caller, args).await,
            Sub::Pause => self.pause(&rest),
            Sub::Resume => self.resume(&rest),
            Sub::Drain => self.begin_drain(caller),
            Sub::Upgrade => self.begin_upgrade(caller).await,
        }
    }

    /// Who did what, from where, and what came of it.
    fn audit(&self, row: &Row, caller: &Caller, arguments: &[Vec<u8>], answer: &Answer) {
        let what = described(row, arguments);
        let result = match answer {
            Ok(value) => match (value.as_i64(), value.as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(text)) => text.to_owned(),
                (None, None) => "done".to_owned(),
            },
            Err(text) => text.clone(),
        };
        let Caller {
            user, address, by, ..
        } = caller;
        tracing::info!(
            target: "audit", user, from = %address, by, command = what, result, "operator's command"
        );
        let event = Event::new(EventKind::Operator, what)
            .with("user", user)
            .with("from", address)
            .with("by", by)
            .with("result", result);
        self.proxy.journal.note(event);
    }
}

fn error(text: &str) -> Value {
    // Line breaks would end the reply.
    Value::error(text.replace(['\r', '\n'], " "))
}

fn is_change(sub: Sub, arguments: &[Vec<u8>]) -> bool {
    let changing: &[u8] = match sub {
        Sub::Config | Sub::Limits => b"set",
        Sub::Slowlog => b"reset",
        _ => return false,
    };
    arguments
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case(changing))
}

/// The command as it is told in the audit: passwords hidden.
fn described(row: &Row, arguments: &[Vec<u8>]) -> String {
    let mut text = format!("WEIR {}", row.name);
    let mut hides = false;
    for argument in arguments {
        let shown = argument.escape_ascii().to_string();
        text.push(' ');
        text += match std::mem::take(&mut hides) {
            true => "(hidden)",
            false => &shown,
        };
        hides = shown.to_ascii_lowercase().contains("password");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_hides_passwords() {
        let row = find(b"config").expect("a row");
        let arguments = ["SET", "a.password", "hunter2", "b", "c\r\n"];
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|it| (*it).into()).collect();
        let text = described(row, &arguments);
        assert_eq!(text, "WEIR CONFIG SET a.password (hidden) b c\\r\\n");
        assert!(is_change(Sub::Config, &arguments) && !is_change(Sub::Kill, &arguments));
    }
}
