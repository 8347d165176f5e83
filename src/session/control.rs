//! Commands that must get through while data connections are stalled, and what
//! has to be put right in their replies.

use super::dispatch::{Row, silent_or};
use super::info::{self, InfoFacts};
use super::input::{Request, Step};
use super::pause::Pause;
use super::proxy::Message;
use super::worker::State;
use crate::backend::{Kind, Marks, Ticket};
use crate::command::{Command, Flags as CommandFlags};
use crate::resp::{self, Value};

impl State {
    /// A command of the control class.
    pub(super) fn control(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let mut marks = silent_or(silent, row.marks());
        if matches!(&*command.name, "info" | "config|set") {
            marks = marks.with(Marks::WHOLE);
            let args = request.args().iter().map(|arg| arg.to_vec()).collect();
            self.sessions[ticket.slot as usize].extra().asked = args;
        }
        let conn = if row.flags.contains(CommandFlags::ALLOW_BUSY) {
            self.control_conn_at_any_time(ticket)
        } else {
            let conn = self.control_conn(ticket);
            conn.and_then(|conn| self.check_gate(conn).map(|()| conn))
        };
        match conn {
            Ok(conn) => {
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                self.set_barrier(ticket);
                step
            }
            Err(failure) => self.refuse(ticket, &failure, silent),
        }
    }

    /// `INFO`: counts of clients are Weir's, not of its connections.
    pub(super) fn rewrite_info(&mut self, ticket: Ticket, reply: &[u8]) -> Option<Vec<u8>> {
        let (value, _) = resp::decode(reply).ok()??;
        let text = value.as_bytes()?;
        if value.is_error() {
            return None;
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let route = session.route;
        let asked = std::mem::take(&mut session.extra().asked);
        let version = session.partition.version;
        let section = self.weir_section(route);
        let facts = self.info_facts(route);
        let text = info::rewrite_info(text, &asked, &facts, &section);
        let value = match version {
            resp::Version::Resp3 => Value::verbatim_txt(text),
            resp::Version::Resp2 => Value::bulk(text),
        };
        let mut out = Vec::new();
        resp::encode(&value, version, &mut out);
        Some(out)
    }

    fn info_facts(&self, route: u16) -> InfoFacts {
        let limits = &self.proxy.limits;
        let metrics = &self.proxy.metrics;
        let gauge = |pick: fn(&crate::metrics::WorkerMetrics) -> i64| {
            metrics.route_total_gauge(route as usize, pick).max(0) as u64
        };
        InfoFacts {
            connected_clients: limits.route_taken(route) as u64,
            blocked_clients: gauge(|worker| worker.clients_blocked.get()),
            pubsub_clients: gauge(|worker| worker.clients_subscribed.get()),
            tracking_clients: gauge(|worker| worker.clients_tracking.get()),
            watching_clients: gauge(|worker| worker.clients_watching.get()),
            clients_in_timeout_table: 0,
            maxclients: limits.route_max(route) as u64,
        }
    }

    /// The section that only Weir's `INFO` has.
    fn weir_section(&self, route: u16) -> String {
        let front = &self.fronts[route as usize];
        let metrics = &self.proxy.metrics;
        let index = route as usize;
        let snapshot = front.node.ledger.snapshot();
        let mut section = format!(
            "# Weir\r\nweir_version:{}\r\nweir_route:{}\r\nweir_workers:{}\r\n\
             weir_backend:{}\r\nweir_backend_ready:{}\r\nweir_clients:{}\r\nweir_max_clients:{}\r\n\
             weir_commands:{}\r\nweir_connections:{}\r\nweir_max_connections:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            front.route.name,
            self.proxy.workers(),
            front.node.address,
            u8::from(front.node.is_ready()),
            self.proxy.limits.route_taken(route),
            self.proxy.limits.route_max(route),
            metrics.route_total(index, |worker| worker.commands.get()),
            snapshot.total(),
            front.config.backend.max_connections,
        );
        for kind in Kind::ALL {
            section.push_str(&format!(
                "weir_connections_{}:{}\r\n",
                kind.name(),
                snapshot.of(kind)
            ));
        }
        section
    }

    /// `CONFIG SET` that passed: what Weir itself goes by follows.
    pub(super) fn config_set_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        let session = &mut self.sessions[ticket.slot as usize];
        let asked = std::mem::take(&mut session.extra().asked);
        if reply.first() != Some(&b'+') {
            return;
        }
        let node = self.node_of(ticket);
        for pair in asked.get(2..).unwrap_or_default().chunks_exact(2) {
            if pair[0].eq_ignore_ascii_case(b"proto-max-bulk-len")
                && let Some(bytes) = memory(&pair[1])
            {
                node.set_bulk_max(bytes);
            }
        }
    }

    /// Tells every worker that a pause begins or ends.
    pub(super) fn tell_pause(&self, route: u16, pause: Option<Pause>) {
        for worker in 0..self.proxy.workers() {
            self.proxy.send(worker, Message::Pause { route, pause });
        }
    }
}

/// A size as `CONFIG SET` takes it (`util.c:memtoull`): a number, and a unit in
/// powers of 1000 or, with a `b`, of 1024.
fn memory(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit: u64 = match &text[digits..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn sizes_read_as_redis_reads_them() {
        for (text, bytes) in [
            ("512mb", Some(512 << 20)),
            ("1G", Some(1_000_000_000)),
            ("100", Some(100)),
            ("1x", None),
            ("99999999999999999999", None),
            ("99999999999999999gb", None),
        ] {
            assert_eq!(memory(text.as_bytes()), bytes, "{text}");
        }
    }
}
