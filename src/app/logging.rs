//! The log: to standard error, as text or JSON, with a level for each module.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{Layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::admin::SetFilter;
use crate::config::{Log, LogFormat};

/// Whether lines of text are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    Yes,
    No,
}

/// Starts the log of this process as `log` says. Events before are lost. Returns what
/// puts another filter into force; the environment's has precedence over it.
///
/// # Errors
///
/// When the process has a log already.
pub fn start(log: &Log) -> io::Result<SetFilter> {
    // Colours are for people, not for files and collectors.
    let colours = match io::stderr().is_terminal() {
        true => Colours::Yes,
        false => Colours::No,
    };
    let (subscriber, filter) = subscriber(log, colours, io::stderr)?;
    subscriber.try_init().map_err(io::Error::other)?;
    Ok(Box::new(move |text| {
        let targets: Targets = text.parse().map_err(|error| format!("{error}"))?;
        filter.reload(targets).map_err(|error| error.to_string())
    }))
}

/// Exchanges the filter of a log.
type Exchange = reload::Handle<Targets, Registry>;

/// What turns events into lines and writes those that pass the filter.
fn subscriber<W>(
    log: &Log,
    colours: Colours,
    writer: W,
) -> io::Result<(Box<dyn Subscriber + Send + Sync>, Exchange)>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter: Targets = log.filter.parse().map_err(io::Error::other)?;
    let (filter, exchange) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = Layer::default().with_writer(writer);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match log.format {
        LogFormat::Text => Box::new(registry.with(lines.with_ansi(colours == Colours::Yes))),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    };
    Ok((subscriber, exchange))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat) -> String {
        let written = Written::default();
        let writer = written.clone();
        let log = Log {
            filter: filter.to_owned(),
            format,
        };
        let (subscriber, _) = subscriber(&log, Colours::No, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "weir::session", client = 7, "hello");
            tracing::debug!(target: "weir::session", "quiet");
            tracing::debug!(target: "weir::backend", "loud");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_module_has_its_level() {
        let text = logged("info,weir::backend=debug", LogFormat::Text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].ends_with("INFO weir::session: hello client=7"),
            "{text}"
        );
        assert!(lines[1].ends_with("DEBUG weir::backend: loud"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("info", LogFormat::Json);
        let event: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["target"], "weir::session");
        assert_eq!(event["message"], "hello");
        assert_eq!(event["client"], 7);
    }
}
