//! Files that change while the server runs: certificates, keys, credentials.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Api;
use crate::tls::ServerTls;

/// How often they are looked at. A look is a few calls of stat.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From here on a certificate's end is told in the log, in seconds.
const SOON_S: i64 = 14 * 24 * 3600;
/// How often that is told, in seconds.
const TELL_EVERY_S: i64 = 24 * 3600;

pub(super) struct Upkeep {
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) api: Api,
}

impl Upkeep {
    pub(super) async fn run(self) {
        let mut told_at_s = None;
        loop {
            self.warn_of_end(&mut told_at_s);
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Takes over what has changed.
    pub(super) async fn look(&self) {
        if let Some(tls) = self.tls.clone() {
            let metrics = self.api.metrics.clone();
            let looked = tokio::task::spawn_blocking(move || {
                match tls.refresh() {
                    Ok(true) => log::info!("the server's certificate was read again"),
                    Ok(false) => {}
                    Err(error) => log::error!("{error}. The one before stays in force"),
                }
                metrics
                    .tls_certificate_end
                    .set(tls.not_after_s().unwrap_or(0));
            });
            let _ = looked.await;
        }
        if let Err(error) = self.api.gate.refresh(&self.api.registry).await {
            log::error!("{error}");
        }
    }

    /// A certificate that has run out is served all the same: it is the clients who judge it, and
    /// the clock that is wrong may be ours.
    fn warn_of_end(&self, told_at_s: &mut Option<i64>) {
        let Some(end_s) = self.tls.as_ref().and_then(|tls| tls.not_after_s()) else {
            return;
        };
        let now_s = i64::try_from(self.api.registry.now().wall.as_ms() / 1000).unwrap_or(i64::MAX);
        let left_s = end_s.saturating_sub(now_s);
        let is_told = told_at_s.is_some_and(|at| (at..at + TELL_EVERY_S).contains(&now_s));
        if left_s > SOON_S || is_told {
            return;
        }
        *told_at_s = Some(now_s);
        if left_s > 0 {
            let hours = left_s / 3600;
            log::warn!("the server's certificate (server.tls_cert_file) ends in {hours} hours");
        } else {
            log::error!(
                "the server's certificate (server.tls_cert_file) has run out, by this machine's \
                 clock: clients will refuse it. Replace the file; it is read again at once"
            );
        }
    }
}
