//! When the settings are read again: on SIGHUP, and when the file changes if
//! `process.watch_config` asks for that. `WEIR RELOAD` is the console's.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::Keeper;
use crate::config::Source;
use crate::session::Proxy;

/// How often the file is looked at. It is read and compared: that takes microseconds,
/// and finds every kind of change (in place, renamed over, a link that points elsewhere,
/// as Kubernetes does it) that notices of the file system tell in different ways.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the settings again at each SIGHUP.
///
/// # Errors
/// When the signal can not be listened for.
pub(super) async fn on_hangup(keeper: Rc<RefCell<Keeper>>) -> io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    while hangups.recv().await.is_some() {
        // What came of it is in the log and in the journal.
        let _ = keeper.borrow_mut().reload("SIGHUP");
    }
    Ok(())
}

/// Reads the settings again when the file has become another and has stayed so for a look.
pub(super) async fn on_change(keeper: Rc<RefCell<Keeper>>, proxy: std::sync::Arc<Proxy>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Source> = None;
    let mut tried: Option<Source> = None;
    loop {
        looks.tick().await;
        if !proxy.settings().process.watch_config {
            continue;
        }
        let Ok(now) = keeper.borrow().source().reread() else {
            // Between two files, or gone: what is in force stays.
            continue;
        };
        let is = |other: &Option<Source>| other.as_ref().is_some_and(|it| it.is_same_as(&now));
        let is_settled = is(&seen);
        let is_news = !now.is_same_as(keeper.borrow().source()) && !is(&tried);
        if is_settled && is_news {
            let _ = keeper.borrow_mut().reload("file change");
            tried = Some(now.clone());
        }
        seen = Some(now);
    }
}
