//! What the console shows.

use std::collections::BTreeMap;

use super::{Answer, Console};
use crate::admin::{record_json, record_markdown};
use crate::backend::Kind;
use crate::metrics::WorkerMetrics;
use crate::metrics::{CountersBy, ErrorCause, RefusedReason, ShedLimit, utc};
use crate::resp::Value;
use crate::session::{By, IdentityView, Message};

/// Events and identities shown if the caller does not say how many.
const SHOWN: usize = 50;

/// Settings of a limit on something: those that end in one of these.
const LIMITS: &[&str] = &[
    "max_clients",
    "reserved_clients",
    "guaranteed",
    "accept_rate",
    "accept_burst",
    "commands_rate",
    "commands_burst",
    "bytes_rate",
    "bytes_burst",
    "priority",
    "refuse_writes_above_memory",
    "max_connections",
    "max_shared",
    "max_leases",
    "max_blocking",
    "max_subscriptions",
    "lease_queue",
    "pause_max",
    "pause_clients",
    "pause_memory",
    "hold_clients",
    "hold_memory",
    "queue_max",
    "in_flight_max",
    "in_flight_bytes_max",
    "output_max",
    "request_max",
    "buffer_memory_max",
];

/// A map from names to values; in RESP2 an array of both in turn.
pub(super) fn map(pairs: Vec<(&str, Value)>) -> Value {
    let pairs = pairs.into_iter();
    Value::map(
        pairs
            .map(|(key, value)| (Value::bulk(key), value))
            .collect::<Vec<_>>(),
    )
}

pub(super) fn number(number: impl TryInto<i64>) -> Value {
    Value::integer(number.try_into().unwrap_or(i64::MAX))
}

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::bulk(text.into())
}

impl Console {
    /// `CLIENTS`.
    pub(super) async fn clients(&self, words: &[&str]) -> Answer {
        let (mut by, mut route, mut limit) = (By::Address, None, SHOWN);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or("ERR syntax error")?;
            match (
                word.to_ascii_uppercase().as_str(),
                value.to_ascii_uppercase().as_str(),
            ) {
                ("BY", "ADDRESS") => by = By::Address,
                ("BY", "USER") => by = By::User,
                ("BY", "NAME") => by = By::Name,
                ("ROUTE", _) => route = Some(self.route(value)?),
                ("LIMIT", _) => {
                    limit = value
                        .parse()
                        .map_err(|_| "ERR LIMIT takes a whole number")?;
                }
                _ => return Err("ERR syntax error".to_owned()),
            }
        }
        let asked: Vec<_> = (0..self.proxy.workers())
            .map(|worker| {
                let (answer, answered) = tokio::sync::oneshot::channel();
                self.proxy.send(worker, Message::Identities { by, answer });
                answered
            })
            .collect();
        let mut all: BTreeMap<(u16, String), IdentityView> = BTreeMap::new();
        for answered in asked {
            for view in answered.await.unwrap_or_default() {
                if route.is_some_and(|route| route != view.route) {
                    continue;
                }
                all.entry((view.route, view.identity.clone()))
                    .and_modify(|known| known.add(&view))
                    .or_insert(view);
            }
        }
        let mut all: Vec<IdentityView> = all.into_values().collect();
        all.sort_by_key(|view| std::cmp::Reverse(view.clients));
        let shown = all.iter().take(limit).map(|view| self.identity(view));
        Ok(Value::array(shown.collect::<Vec<_>>()))
    }

    fn identity(&self, view: &IdentityView) -> Value {
        map(vec![
            ("identity", text(&*view.identity)),
            ("route", text(&*self.proxy.routes[view.route as usize].name)),
            ("clients", number(view.clients)),
            ("new_1m", number(view.new_1m)),
            ("new_10m", number(view.new_10m)),
            ("idle_mean", number(view.idle_sum / view.clients.max(1))),
            ("idle_max", number(view.idle_max)),
            ("blocked", number(view.blocked)),
            ("subscribed", number(view.subscribed)),
            ("memory", number(view.memory)),
            ("refused", number(view.refused)),
            ("commands_refused", number(view.commands_refused)),
        ])
    }

    /// `POOLS`.
    pub(super) fn pools(&self) -> Value {
        let mut pools = Vec::new();
        for route in &self.proxy.routes {
            for node in &route.deployment.snapshot().nodes {
                let snapshot = node.ledger.snapshot();
                let mut pairs = vec![
                    ("route", text(&*route.name)),
                    ("node", text(&*node.address)),
                    ("connections", number(snapshot.total())),
                    ("max_connections", number(snapshot.limits.max_connections)),
                ];
                for kind in Kind::ALL {
                    pairs.push((kind.name(), number(snapshot.of(kind))));
                }
                pairs.push(("waiting", number(snapshot.waiting.iter().sum::<usize>())));
                let longest = snapshot.longest_wait.iter().max();
                let longest = longest.map_or(0, |wait| wait.as_millis() as i64);
                pairs.push(("longest_wait_ms", number(longest)));
                pairs.push(("partitions", number(snapshot.partitions)));
                pools.push(map(pairs));
            }
        }
        Value::array(pools)
    }

    /// `NODES`.
    pub(super) fn nodes(&self) -> Value {
        let latest = self.proxy.journal.samples().latest().cloned();
        let mut nodes = Vec::new();
        for route in &self.proxy.routes {
            let deployment = route.deployment.snapshot();
            for (member, node) in deployment.topology.members.iter().zip(&deployment.nodes) {
                let routes = latest.iter().flat_map(|sample| &sample.routes);
                let sample = routes
                    .filter(|sample| *sample.route == *route.name)
                    .flat_map(|sample| &sample.nodes)
                    .find(|sample| *sample.node == *node.address);
                let micros = |pick: Option<u32>| pick.map_or(Value::null(), number);
                let (breaker, _) = node.breaker();
                let why = node
                    .last_error()
                    .map_or(String::new(), |why| why.to_string());
                let facts = node.facts();
                let (major, minor, patch) = facts.version;
                nodes.push(map(vec![
                    ("route", text(&*route.name)),
                    ("node", text(&*node.address)),
                    ("role", text(member.role.label())),
                    ("up", number(i64::from(node.is_ready()))),
                    ("breaker", text(breaker.name())),
                    ("why", text(why)),
                    ("version", text(format!("{major}.{minor}.{patch}"))),
                    ("connections", number(node.ledger.snapshot().total())),
                    ("maxclients", facts.maxclients.map_or(Value::null(), number)),
                    ("p50_us", micros(sample.and_then(|it| it.p50_us))),
                    ("p99_us", micros(sample.and_then(|it| it.p99_us))),
                ]));
            }
        }
        Value::array(nodes)
    }

    /// `LIMITS`, or one of them set.
    pub(super) fn limits(&self, words: &[&str]) -> Answer {
        match words {
            [] => {}
            [set, key, value] if set.eq_ignore_ascii_case("set") => {
                if !is_limit(key) {
                    return Err(format!("ERR {key} is no limit; WEIR LIMITS lists them"));
                }
                return self.set(vec![((*key).to_owned(), (*value).to_owned())]);
            }
            _ => return Err("ERR syntax error".to_owned()),
        }
        let settings = self.proxy.settings();
        let limits = settings
            .items()
            .into_iter()
            .filter(|item| is_limit(&item.key));
        let shown = limits.map(|item| {
            map(vec![
                ("limit", text(&*item.key)),
                ("value", text(item.value)),
                ("used", self.used(&item.key).map_or(Value::null(), number)),
            ])
        });
        Ok(Value::array(shown.collect::<Vec<_>>()))
    }

    /// How much of a limit is in use, where that can be said in one number.
    fn used(&self, key: &str) -> Option<u64> {
        if key == "process.max_clients" {
            return Some(self.proxy.limits.taken() as u64);
        }
        if key == "process.buffer_memory_max" {
            let metrics = &self.proxy.metrics;
            let of = |route| metrics.route_total_gauge(route, |m| m.buffered_bytes.get());
            let held: i64 = (0..self.proxy.routes.len()).map(of).sum();
            return u64::try_from(held).ok();
        }
        for (index, route) in self.proxy.routes.iter().enumerate() {
            let Some(setting) = key.strip_prefix(&format!("route.{}.", route.name)) else {
                continue;
            };
            let ledger = || route.deployment.primary().ledger.snapshot();
            let of = |kind| ledger().of(kind) as u64;
            let gauge = |pick: &dyn Fn(&WorkerMetrics) -> i64| {
                let total = self.proxy.metrics.route_total_gauge(index, |m| pick(m));
                u64::try_from(total).unwrap_or(0)
            };
            return match setting {
                "clients.pause_clients" => Some(gauge(&|m| m.commands_paused.get())),
                "clients.pause_memory" => Some(gauge(&|m| m.paused_bytes.get())),
                "failover.hold_clients" => Some(gauge(&|m| m.commands_held.get())),
                "failover.hold_memory" => Some(gauge(&|m| m.held_bytes.get())),
                "overload.queue_max" => Some(gauge(&|m| m.commands_waiting.get())),
                "clients.max_clients" => Some(self.proxy.limits.route_taken(index as u16) as u64),
                "backend.max_connections" => Some(ledger().total() as u64),
                "backend.max_shared" => Some(of(Kind::Shared)),
                "backend.max_leases" => Some(of(Kind::Lease) + of(Kind::Tunnel)),
                "backend.max_blocking" => Some(of(Kind::Blocking)),
                "backend.max_subscriptions" => Some(of(Kind::Subscription)),
                "backend.lease_queue" => Some(ledger().waiting.iter().sum::<usize>() as u64),
                _ => None,
            };
        }
        None
    }

    /// `SHED`.
    pub(super) fn shed(&self) -> Value {
        let mut shed = Vec::new();
        for (index, route) in self.proxy.routes.iter().enumerate() {
            let mut row = |what: &str, reason: &str, count: u64| {
                if count > 0 {
                    shed.push(map(vec![
                        ("route", text(&*route.name)),
                        ("what", text(what)),
                        ("reason", text(reason)),
                        ("count", number(count)),
                    ]));
                }
            };
            let total = |pick: &dyn Fn(&WorkerMetrics) -> u64| {
                self.proxy.metrics.route_total(index, |m| pick(m))
            };
            for reason in RefusedReason::ALL {
                let refused = total(&|m| get(&m.clients_refused, *reason));
                row("clients refused", reason.label(), refused);
            }
            for limit in ShedLimit::ALL {
                row(
                    "commands shed",
                    limit.label(),
                    total(&|m| get(&m.shed, *limit)),
                );
            }
            for cause in ErrorCause::ALL {
                row("errors", cause.label(), total(&|m| get(&m.errors, *cause)));
            }
        }
        Value::array(shed)
    }

    /// `EVENTS`.
    pub(super) fn events(&self, words: &[&str]) -> Answer {
        let count = match words {
            [] => SHOWN,
            [count, ..] => count
                .parse()
                .map_err(|_| "ERR value is not an integer or out of range")?,
        };
        let events = self.proxy.journal.last(count, |_| true);
        let moment = |millis| text(utc::rfc3339(utc::from_unix_millis(millis)));
        let shown = events.iter().map(|event| {
            let facts = event.facts.iter();
            let facts = facts.map(|(name, value)| (*name, text(&**value)));
            map(vec![
                ("number", number(event.number)),
                ("at", moment(event.at)),
                ("last_at", moment(event.last_at)),
                ("times", number(event.times)),
                ("severity", text(event.severity.label())),
                ("kind", text(event.kind.label())),
                ("route", text(&*event.route)),
                ("subject", text(&*event.subject)),
                ("facts", map(facts.collect())),
            ])
        });
        Ok(Value::array(shown.collect::<Vec<_>>()))
    }

    /// `RECORD`.
    pub(super) fn record(&self, words: &[&str]) -> Answer {
        match words
            .first()
            .map(|word| word.to_ascii_uppercase())
            .as_deref()
        {
            None | Some("MARKDOWN") => {
                Ok(Value::verbatim_txt(record_markdown(&self.proxy.journal)))
            }
            Some("JSON") => Ok(Value::bulk(record_json(&self.proxy.journal))),
            Some(_) => Err("ERR syntax error".to_owned()),
        }
    }

    /// The index of the route of this name.
    pub(super) fn route(&self, name: &str) -> Result<u16, String> {
        let routes = &self.proxy.routes;
        let index = routes.iter().position(|route| route.name == name);
        let index = index.ok_or_else(|| format!("ERR there is no route {name:?}"))?;
        Ok(index as u16)
    }
}

fn get<R: crate::metrics::Reason, const N: usize>(counters: &CountersBy<R, N>, reason: R) -> u64 {
    counters[reason].get()
}

fn is_limit(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    LIMITS.contains(&name)
}
