//! Settings given on the command line or in the environment instead of a file.

use toml::Spanned;
use toml::de::DeValue;

use super::agree::agree;
use super::kind::Sources;
use super::mistake::Mistakes;
use super::reader::Reader;
use super::source::{self, Override};
use super::{Config, Route};

/// The name of the one route of a Weir without a file.
const ROUTE_NAME: &str = "main";
/// Where flags are, in mistakes.
const COMMAND_LINE: &str = "command line";

/// What the command line and the environment say, as written there.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`, as often as given.
    pub listen: Vec<String>,
    /// `--backend`.
    pub backend: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--workers`.
    pub workers: Option<String>,
    /// The environment variable `WEIR_LOG`.
    pub log: Option<String>,
}

impl Flags {
    /// The configuration of a Weir without a file: one route, everything else default.
    pub(super) fn config(
        &self,
        sources: Sources<'_>,
        overrides: &[Override],
    ) -> Result<Config, Mistakes> {
        let mut reader = Reader::new(COMMAND_LINE, "", sources);
        let mut config = Config::empty();
        config.routes = vec![Route {
            name: ROUTE_NAME.to_owned(),
            ..Route::default()
        }];
        self.apply(&mut config, &mut reader);
        source::apply(overrides, &mut config, &mut reader);
        if reader.is_whole() {
            reader.require::<super::Backend>("route.main.backend", None);
            agree(&mut config, &mut reader);
        }
        reader.finish(config)
    }

    /// Puts what is given in place of what the file says.
    pub(super) fn apply(&self, config: &mut Config, reader: &mut Reader<'_>) {
        let flag = |name: &'static str| (COMMAND_LINE, name);
        if let Some(filter) = &self.log {
            let named = ("environment", "WEIR_LOG");
            reader.given(&mut config.log, ("log", "filter"), named, &text(filter));
        }
        if let Some(address) = &self.admin {
            let key = ("admin", "listen");
            reader.given(&mut config.admin, key, flag("--admin"), &text(address));
        }
        if let Some(workers) = &self.workers {
            let (key, workers) = (("process", "workers"), number(workers));
            reader.given(&mut config.process, key, flag("--workers"), &workers);
        }
        let Some(route) = config.routes.first_mut() else {
            return;
        };
        if let Some(address) = &self.backend {
            let key = ("route.main.backend", "address");
            reader.given(&mut route.backend, key, flag("--backend"), &text(address));
        }
        if !self.listen.is_empty() {
            let (key, addresses) = (("route.main", "listen"), list(&self.listen));
            reader.given(route, key, flag("--listen"), &addresses);
        }
    }
}

fn text(value: &str) -> DeValue<'_> {
    DeValue::String(value.into())
}

/// The addresses as the list that a file would hold.
fn list(addresses: &[String]) -> DeValue<'_> {
    let items = addresses
        .iter()
        .map(|address| Spanned::new(0..0, text(address)));
    DeValue::Array(items.collect())
}

/// A number if it is one; else the text, for the setting to refuse.
fn number(value: &str) -> DeValue<'_> {
    match DeValue::parse(value) {
        Ok(number) if number.get_ref().is_integer() => number.into_inner(),
        _ => text(value),
    }
}
