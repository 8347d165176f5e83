//! `[traces]`: which commands are traced, and where that is sent.

use std::time::Duration;

use crate::config::HttpUrl;
use crate::config::definition::section;
use crate::config::kind::{Count, HTTP_OR_OFF, MILLISECOND, OptionalText, Time};

section! {
    /// Traces for OpenTelemetry: of one command in so many a span, with when it came, how long
    /// it waited in Weir and how long Redis took, whose it was and what became of it. Never
    /// a key or a value.
    pub struct Traces {
        /// Where spans are sent: the address of a collector's OTLP/HTTP receiver, such as
        /// "http://127.0.0.1:4318/v1/traces", or "off". Plain HTTP, since a collector belongs on the
        /// same machine or beside it, and speaks TLS to whatever is farther away.
        endpoint: Option<HttpUrl> = HTTP_OR_OFF,
            default "off", changes Live;

        /// One command in so many is traced, at random; of those that Weir refuses as many.
        /// With 1000 a Weir of 50,000 commands a second sends 50 spans a second, which a trace
        /// store takes without noticing. 1 is for tests.
        sample: u32 = Count::from_to(1, 1_000_000),
            default 1_000, changes Live;

        /// Spans that wait to be sent; what comes beyond is dropped and counted
        /// (`weir_trace_spans_dropped_total`). They are sent every second, or when 512 are there. One
        /// takes about 500 bytes.
        queue: usize = Count::from_to(1, 100_000),
            default 2_048, changes Live;

        /// How long the collector may take for one batch. What it does not take in this time
        /// is dropped and counted; clients never wait for it.
        timeout: Duration = Time::from_to(MILLISECOND, Duration::from_secs(60)),
            default "5s", changes Live;

        /// The service that spans are of (`service.name`): by it a trace store tells one Weir's
        /// from another's.
        service: Option<String> = OptionalText,
            default "weir", changes Live;
    }
}
