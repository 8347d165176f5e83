//! What is told about limits on clients: each rule's numbers, what it counts and whom it
//! refused. As many series as there are rules and a few who
//! hold the most, whoever connects.

use crate::admission::{Limits, Metered, NoRoom, Rule, RuleTally, TopIdentity};
use crate::metrics::{Exposition, Kind};

/// What one family tells of a rule.
type Number = fn(&Rule) -> u64;

/// Writes the families of the rules.
pub fn expose_limits(limits: &Limits, out: &mut Exposition) {
    let families: [(&str, &str, Number); 4] = [
        (
            "weir_limit_clients",
            "Clients that the rule is about.",
            |rule| rule.tally.clients() as u64,
        ),
        (
            "weir_limit_max_clients",
            "The rule's ceiling for each who is counted by it; 0 for none.",
            |rule| rule.max_clients as u64,
        ),
        (
            "weir_limit_guaranteed",
            "Places that are kept for the rule's clients.",
            |rule| rule.guaranteed as u64,
        ),
        (
            "weir_limit_accept_rate",
            "New clients a second for each who is counted by the rule; 0 for no limit.",
            |rule| rule.accept_rate as u64,
        ),
    ];
    for (name, help, number) in families {
        out.family(name, help, Kind::Gauge);
        for_each_rule(limits, |route, rule| {
            let labels = [("route", route), ("limit", &*rule.tally.name)];
            out.sample(&labels, number(rule));
        });
    }
    out.family(
        "weir_limit_refused_total",
        "Clients refused, by the rule that refused them and why; what no rule refused stands \
         with the rule \"address\".",
        Kind::Counter,
    );
    for_each_rule(limits, |route, rule| {
        for why in NoRoom::ALL {
            let labels = [
                ("route", route),
                ("limit", &*rule.tally.name),
                ("reason", why.label()),
            ];
            out.sample(&labels, rule.tally.refused(why));
        }
    });
    expose_rates(limits, out);
    expose_identities(limits, out);
    out.family(
        "weir_clients_kept",
        "Places for clients that are free and kept for the clients of some rules.",
        Kind::Gauge,
    );
    for (index, route) in limits.routes() {
        out.sample(&[("route", route)], limits.route_kept(index) as u64);
    }
}

/// Name, help, kind and what it tells of one rate of a rule.
type RateFamily = (
    &'static str,
    &'static str,
    Kind,
    fn(&RuleTally, Metered) -> u64,
);

fn expose_rates(limits: &Limits, out: &mut Exposition) {
    let families: [RateFamily; 3] = [
        (
            "weir_limit_rate",
            "Commands or bytes a second for each who is counted by the rule; 0 for no limit.",
            Kind::Gauge,
            |tally, of| tally.rate(of).per_second as u64,
        ),
        (
            "weir_limit_used_total",
            "Commands or bytes that the rule's clients have used of their rates.",
            Kind::Counter,
            RuleTally::used,
        ),
        (
            "weir_limit_commands_refused_total",
            "Commands refused by the rule, by which of its rates.",
            Kind::Counter,
            RuleTally::over_rate,
        ),
    ];
    for (name, help, kind, number) in families {
        out.family(name, help, kind);
        for_each_rule(limits, |route, rule| {
            if !rule.is_metered() {
                return;
            }
            for of in Metered::ALL {
                let labels = [
                    ("route", route),
                    ("limit", &*rule.tally.name),
                    ("rate", of.key()),
                ];
                out.sample(&labels, number(&rule.tally, of));
            }
        });
    }
    out.family(
        "weir_limit_refuses_writes",
        "Whether writes of the rule's clients are refused since the memory of Redis is nearly used up.",
        Kind::Gauge,
    );
    for_each_rule(limits, |route, rule| {
        if rule.says_refuse_writes_above().is_some() {
            let labels = [("route", route), ("limit", &*rule.tally.name)];
            out.sample(&labels, u64::from(rule.tally.refuses_writes.is_set()));
        }
    });
}

/// So many are shown of those who hold the most connections, of those who were refused the most, and
/// of those whose commands were: a bounded number of series at any time.
const SHOWN: usize = 10;

fn expose_identities(limits: &Limits, out: &mut Exposition) {
    let top = limits.top(SHOWN);
    let idle = |top: &TopIdentity| top.idle.map(|ages| ages.oldest.as_secs_f64());
    let families: [Family; 5] = [
        (
            "weir_identity_clients",
            "Connections of those who hold the most or were refused most: by address, and by \
             user and name where a rule counts by them.",
            Kind::Gauge,
            &|top| Some(top.clients as f64),
        ),
        (
            "weir_identity_max_clients",
            "How many connections these may have; 0 for no ceiling.",
            Kind::Gauge,
            &|top| Some(top.max_clients as f64),
        ),
        (
            "weir_identity_refused_total",
            "Connections that these were refused.",
            Kind::Counter,
            &|top| Some(top.refused as f64),
        ),
        (
            "weir_identity_commands_refused_total",
            "Commands that were refused to the clients of these.",
            Kind::Counter,
            &|top| Some(top.commands_refused as f64),
        ),
        (
            "weir_identity_idle_oldest_seconds",
            "How long the longest idle connection of these has been so.",
            Kind::Gauge,
            &idle,
        ),
    ];
    for (name, help, kind, value) in families {
        out.family(name, help, kind);
        for of in &top {
            let labels = [
                ("route", &*of.route),
                ("limit", &*of.limit),
                ("identity", &*of.identity),
            ];
            if let Some(value) = value(of) {
                out.sample(&labels, value);
            }
        }
    }
    out.family(
        "weir_identity_clients_growth",
        "How many connections these have more than so long ago.",
        Kind::Gauge,
    );
    for of in &top {
        let windows = [
            ("1m", of.grown.one_minute),
            ("10m", of.grown.ten_minutes),
            ("1h", of.grown.one_hour),
        ];
        for (window, grown) in windows {
            let labels = [
                ("route", &*of.route),
                ("limit", &*of.limit),
                ("identity", &*of.identity),
                ("window", window),
            ];
            out.sample(&labels, grown);
        }
    }
}

/// Name, help, kind and what it tells of one.
type Family<'f> = (
    &'static str,
    &'static str,
    Kind,
    &'f dyn Fn(&TopIdentity) -> Option<f64>,
);

fn for_each_rule(limits: &Limits, mut visit: impl FnMut(&str, &Rule)) {
    for (index, route) in limits.routes() {
        for rule in &limits.rules(index).rules {
            visit(route, rule);
        }
    }
}
