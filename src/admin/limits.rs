//! What is told about limits on clients: each rule's numbers, what it counts and whom it
//! refused. As many series as there are rules, whoever connects.

use crate::admission::{Limits, NoRoom, Rule};
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
    out.family(
        "weir_clients_kept",
        "Places for clients that are free and kept for the clients of some rules.",
        Kind::Gauge,
    );
    for (index, route) in limits.routes() {
        out.sample(&[("route", route)], limits.route_kept(index) as u64);
    }
}

fn for_each_rule(limits: &Limits, mut visit: impl FnMut(&str, &Rule)) {
    for (index, route) in limits.routes() {
        for rule in &limits.rules(index).rules {
            visit(route, rule);
        }
    }
}
