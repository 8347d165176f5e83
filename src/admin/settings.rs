//! The settings in force and where they came from: reading them again, setting one.

use std::sync::Arc;

use crate::config::{Change, Mistakes, Override, Reload, Source};
use crate::metrics::{Event, EventKind};
use crate::net::{self, DescriptorError};
use crate::session::{Proxy, Which};

/// Puts another log filter into force.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String>>;

/// Keeps the settings of one process, on the main thread.
pub struct Keeper {
    proxy: Arc<Proxy>,
    /// As the file was when the settings in force were read from it.
    source: Source,
    /// Put over the file while Weir runs; gone with the next reload.
    overrides: Vec<Override>,
    set_filter: SetFilter,
}

/// Why settings were not put into force. Nothing has changed then.
#[derive(Debug)]
pub enum Refused {
    /// They are wrong.
    Mistakes(Mistakes),
    /// These change by a restart only.
    Restart(Vec<Change>),
    /// There was nothing to read them from again.
    NoFile,
    /// The system does not give as many file descriptors.
    Descriptors(DescriptorError),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Mistakes(mistakes) => write!(f, "{mistakes}"),
            Refused::Restart(changes) => {
                f.write_str("nothing was changed, since this needs a restart: ")?;
                let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
            Refused::Descriptors(error) => write!(f, "{error}"),
            Refused::NoFile => f.write_str("Weir runs without a configuration file"),
        }
    }
}

impl Keeper {
    /// Keeps what `proxy` was started with.
    pub fn new(proxy: Arc<Proxy>, source: Source, set_filter: SetFilter) -> Keeper {
        Keeper {
            proxy,
            source,
            overrides: Vec::new(),
            set_filter,
        }
    }

    /// Where the settings came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What was set while Weir runs and is not in the file.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// What a reload would change now, without doing it.
    ///
    /// # Errors
    /// That the file has mistakes, or that there is none.
    pub fn preview(&self) -> Result<Vec<Change>, Refused> {
        if self.source.path().is_none() {
            return Err(Refused::NoFile);
        }
        let config = self.source.reread().and_then(|source| source.config(&[]));
        let config = config.map_err(Refused::Mistakes)?;
        Ok(self.proxy.settings().changes(&config))
    }

    /// Reads the file again and puts it into force: wholly, or not at all. What was set
    /// by hand is as the file says afterwards. Certificates are read again with it, which
    /// blocks for as long as reading a few small files takes. Notes what came of it; `by`
    /// is who asked.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn reload(&mut self, by: &str) -> Result<Vec<Change>, Refused> {
        let result = self.try_reload();
        match &result {
            Ok(changes) => {
                let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
                tracing::info!(by, changes = texts.join("; "), "settings were read again");
                let event = Event::new(EventKind::Reloaded, by).with("changes", changes.len());
                let event = texts
                    .iter()
                    .fold(event, |event, text| event.with("change", text));
                self.proxy.journal.note(event);
                self.proxy.renew_certificates(Which::All);
            }
            Err(refused) => {
                tracing::warn!(by, "settings were not read again: {refused}");
                let event = Event::new(EventKind::ReloadRefused, by);
                self.proxy.journal.note(event.with("why", refused));
            }
        }
        result
    }

    fn try_reload(&mut self) -> Result<Vec<Change>, Refused> {
        if self.source.path().is_none() {
            return Err(Refused::NoFile);
        }
        let source = self.source.reread().map_err(Refused::Mistakes)?;
        let changes = self.put(&source, &[])?;
        self.source = source;
        self.overrides.clear();
        Ok(changes)
    }

    /// Sets these settings over the file, all or none.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub fn set(&mut self, given: Vec<Override>) -> Result<Vec<Change>, Refused> {
        let mut overrides = self.overrides.clone();
        for one in given {
            overrides.retain(|earlier| earlier.key != one.key);
            overrides.push(one);
        }
        let changes = self.put(&self.source.clone(), &overrides)?;
        self.overrides = overrides;
        Ok(changes)
    }

    fn put(&self, source: &Source, overrides: &[Override]) -> Result<Vec<Change>, Refused> {
        let config = source.config(overrides).map_err(Refused::Mistakes)?;
        let changes = self.proxy.settings().changes(&config);
        let needs_restart = changes.iter().filter(|it| it.reload == Reload::Restart);
        let needs_restart: Vec<Change> = needs_restart.cloned().collect();
        if !needs_restart.is_empty() {
            return Err(Refused::Restart(needs_restart));
        }
        let descriptors = net::needed(&config, self.proxy.workers());
        net::check_descriptors(descriptors).map_err(Refused::Descriptors)?;
        if let Err(error) = (self.set_filter)(&config.log.filter) {
            tracing::warn!("the log keeps its filter: {error}");
        }
        self.proxy.apply(config);
        Ok(changes)
    }
}
