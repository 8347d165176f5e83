//! What is told about listeners and certificates: handshakes, headers, expiry.

use crate::metrics::{Exposition, HandshakeResult, HeaderResult, Kind};
use crate::session::Proxy;

/// Writes what the doors of all routes count, and when certificates expire. Families
/// without a door or certificate that they are about are left out.
pub fn expose_doors(proxy: &Proxy, out: &mut Exposition) {
    expose_handshakes(proxy, out);
    expose_backend_handshakes(proxy, out);
    expose_headers(proxy, out);
    expose_expiry(proxy, out);
}

fn expose_handshakes(proxy: &Proxy, out: &mut Exposition) {
    let doors = || {
        proxy.routes.iter().flat_map(|route| {
            let doors = route.doors.iter().filter(|door| !door.config.is_plain());
            doors.map(|door| (route.name.as_str(), door))
        })
    };
    if doors().next().is_none() {
        return;
    }
    let help = "Clients at their TLS handshake or PROXY header now.";
    out.family("weir_handshakes_in_progress", help, Kind::Gauge);
    for (route, door) in doors() {
        let labels = [("route", route), ("listener", door.label.as_str())];
        out.sample(&labels, door.handshakes_now() as u64);
    }
    let help = "Clients that may be at their TLS handshake or PROXY header at once.";
    out.family("weir_handshakes_max", help, Kind::Gauge);
    for (route, door) in doors() {
        let labels = [("route", route), ("listener", door.label.as_str())];
        out.sample(&labels, door.config.handshakes_max as u64);
    }
    let help = "TLS handshakes with clients, by how they ended.";
    out.family("weir_tls_handshakes_total", help, Kind::Counter);
    for (route, door) in doors().filter(|(_, door)| door.tls.is_some()) {
        for result in HandshakeResult::ALL {
            let labels = [
                ("route", route),
                ("listener", door.label.as_str()),
                ("result", result.label()),
            ];
            out.sample(&labels, door.handshakes.get(*result));
        }
    }
}

fn expose_backend_handshakes(proxy: &Proxy, out: &mut Exposition) {
    let secured = || {
        let routes = proxy.routes.iter();
        routes.filter_map(|route| Some((route, route.deployment.tls.as_ref()?)))
    };
    if secured().next().is_none() {
        return;
    }
    let help = "TLS handshakes with nodes, by how they ended.";
    out.family("weir_backend_tls_handshakes_total", help, Kind::Counter);
    for (route, tls) in secured() {
        for result in HandshakeResult::ALL {
            let labels = [("route", route.name.as_str()), ("result", result.label())];
            out.sample(&labels, tls.handshakes.get(*result));
        }
    }
}

fn expose_headers(proxy: &Proxy, out: &mut Exposition) {
    let doors = || {
        proxy.routes.iter().flat_map(|route| {
            let doors = route.doors.iter();
            let doors = doors.filter(|door| !door.config.proxy_protocol_from.is_empty());
            doors.map(|door| (route.name.as_str(), door))
        })
    };
    if doors().next().is_none() {
        return;
    }
    let help = "PROXY headers in front of connections, by what became of them.";
    out.family("weir_proxy_headers_total", help, Kind::Counter);
    for (route, door) in doors() {
        for result in HeaderResult::ALL {
            let labels = [
                ("route", route),
                ("listener", door.label.as_str()),
                ("result", result.label()),
            ];
            out.sample(&labels, door.headers.get(*result));
        }
    }
}

fn expose_expiry(proxy: &Proxy, out: &mut Exposition) {
    let expiring = || {
        let certificates = proxy.certificates();
        certificates.filter_map(|certificates| Some((certificates.expires()?, certificates)))
    };
    if expiring().next().is_none() {
        return;
    }
    let help = "When the first certificate that Weir shows at this place expires, in Unix time.";
    out.family(
        "weir_certificate_expiry_timestamp_seconds",
        help,
        Kind::Gauge,
    );
    for (expires, certificates) in expiring() {
        out.sample(&[("place", certificates.place())], expires);
    }
}
