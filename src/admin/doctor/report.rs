//! Findings as text for people and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::causes::Finding;

/// For a terminal.
pub fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "Nothing is wrong as far as Weir can see.\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let Finding {
            route,
            cause,
            severity,
            what,
            evidence,
            advice,
        } = finding;
        let head = format!("{} {}", severity.label().to_uppercase(), cause.label());
        writeln!(text, "{head} (route {route})\n  {what}").expect("a String takes all");
        for line in evidence {
            writeln!(text, "  - {line}").expect("a String takes all");
        }
        text += "  What to do:\n";
        for line in advice {
            writeln!(text, "  * {line}").expect("a String takes all");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// As a JSON array.
pub fn json(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "route": finding.route,
            "cause": finding.cause.label(),
            "severity": finding.severity.label(),
            "what": finding.what,
            "evidence": finding.evidence,
            "advice": finding.advice,
        })
    };
    findings.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::doctor::Cause;
    use crate::metrics::Severity;

    #[test]
    fn a_finding_says_what_why_and_what_to_do() {
        let finding = Finding {
            route: "main".into(),
            cause: Cause::Leak,
            severity: Severity::Warning,
            what: "it leaks".into(),
            evidence: vec!["a".into(), "b".into()],
            advice: vec!["mend it".into()],
        };
        assert_eq!(
            text(std::slice::from_ref(&finding)),
            "WARNING leak (route main)\n  it leaks\n  - a\n  - b\n  What to do:\n  * mend it\n"
        );
        assert_eq!(json(&[finding])[0]["cause"], "leak");
        assert!(text(&[]).starts_with("Nothing is wrong"));
    }
}
