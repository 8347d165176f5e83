//! Looks whether files of certificates have changed, as they do when one is renewed.

use std::sync::Arc;

use tokio::sync::watch;

use crate::session::{Proxy, Which};

/// Looks every `certificate_check` until told to stop. Reads only files that have changed.
pub async fn watch(proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let every = proxy.settings().process.certificate_check;
    if every.is_zero() || proxy.certificates().next().is_none() {
        return;
    }
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(every) => {}
        }
        let proxy = proxy.clone();
        let renewed = tokio::task::spawn_blocking(move || proxy.renew_certificates(Which::Changed));
        if renewed.await.is_err() {
            // The process is about to end.
            return;
        }
    }
}
