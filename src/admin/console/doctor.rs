//! `WEIR DOCTOR`.

use super::Console;
use super::show::{map, text};
use crate::admin::findings;
use crate::resp::Value;

impl Console {
    /// `DOCTOR`.
    pub(super) fn doctor(&self) -> Value {
        let lines = |lines: &[String]| Value::array(lines.iter().map(text).collect::<Vec<_>>());
        let findings = findings(&self.proxy);
        let shown = findings.iter().map(|finding| {
            map(vec![
                ("route", text(&*finding.route)),
                ("severity", text(finding.severity.label())),
                ("cause", text(finding.cause.label())),
                ("what", text(&*finding.what)),
                ("evidence", lines(&finding.evidence)),
                ("advice", lines(&finding.advice)),
            ])
        });
        Value::array(shown.collect::<Vec<_>>())
    }
}
