//! What values must be to work, one by one and together.

use super::{Config, ConfigError, Server};

impl Config {
    /// Whether the values go together.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] names the first that do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self {
            server,
            store,
            liveness,
            truth,
            history,
            notify,
            auth,
            edgegallery,
            ..
        } = self;
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let day_ms = 24 * 3600 * 1000;
        for (key, value, min, max) in [
            (
                "server.body_limit_bytes",
                server.body_limit_bytes as u64,
                1,
                16 << 20,
            ),
            (
                "server.header_timeout_ms",
                server.header_timeout_ms,
                1,
                day_ms,
            ),
            ("server.body_timeout_ms", server.body_timeout_ms, 1, day_ms),
            ("server.idle_timeout_ms", server.idle_timeout_ms, 1, day_ms),
            (
                "server.connections_max",
                server.connections_max as u64,
                1,
                1_000_000,
            ),
            ("server.queue_max", server.queue_max as u64, 1, 1_000_000),
            ("store.cache_mb", store.cache_mb, 1, 1 << 20),
            ("store.commit_linger_ms", store.commit_linger_ms, 0, 1000),
            (
                "store.commit_linger_beats",
                store.commit_linger_beats as u64,
                1,
                1_000_000,
            ),
            ("store.mark_interval_ms", store.mark_interval_ms, 0, day_ms),
            (
                "store.idle_mark_interval_ms",
                store.idle_mark_interval_ms,
                1,
                day_ms,
            ),
            (
                "liveness.min_interval_s",
                liveness.min_interval_s.into(),
                1,
                u32::MAX.into(),
            ),
            (
                "liveness.grace_percent",
                liveness.grace_percent.into(),
                0,
                10_000,
            ),
            ("liveness.grace_min_ms", liveness.grace_min_ms, 1, day_ms),
            ("truth.tick_ms", truth.tick_ms, 1, truth.stall_ms / 2),
            ("truth.stall_ms", truth.stall_ms, 2, day_ms),
            ("truth.blind_cap", truth.blind_cap.into(), 1, 1_000_000),
            (
                "history.keep_per_service",
                history.keep_per_service as u64,
                1,
                100_000,
            ),
            ("history.keep_days", history.keep_days, 1, 36_500),
            ("notify.timeout_ms", notify.timeout_ms, 1, day_ms),
            (
                "notify.give_up_after_s",
                notify.give_up_after_s,
                1,
                36_500 * 24 * 3600,
            ),
            (
                "notify.in_flight_max",
                notify.in_flight_max as u64,
                4,
                10_000,
            ),
            ("notify.batch_max", notify.batch_max as u64, 1, 1_000),
            ("auth.leeway_s", auth.leeway_s, 0, 3600),
            ("auth.token_ttl_s", auth.token_ttl_s, 60, day_ms / 1000),
            (
                "auth.token_requests_per_min",
                auth.token_requests_per_min.into(),
                1,
                1_000_000,
            ),
            (
                "edgegallery.token_ttl_s",
                edgegallery.token_ttl_s,
                60,
                day_ms / 1000,
            ),
            (
                "edgegallery.max_skew_s",
                edgegallery.max_skew_s,
                0,
                day_ms / 1000,
            ),
            (
                "edgegallery.replay_window_s",
                edgegallery.replay_window_s,
                1,
                2 * day_ms / 1000,
            ),
        ] {
            if value < min || value > max {
                return conflict(format!("`{key}` ({value}) must be between {min} and {max}"));
            }
        }
        notify.networks()?;
        auth.check()?;
        edgegallery.check()?;
        server.check_tls()?;
        if !(liveness.min_interval_s <= liveness.default_interval_s
            && liveness.default_interval_s <= liveness.max_interval_s)
        {
            return conflict(format!(
                "`liveness.min_interval_s` ({}) ≤ `liveness.default_interval_s` ({}) ≤ \
                 `liveness.max_interval_s` ({}) must hold",
                liveness.min_interval_s, liveness.default_interval_s, liveness.max_interval_s
            ));
        }
        let grace_floor_ms = truth.stall_ms + 2 * truth.tick_ms;
        if liveness.grace_min_ms < grace_floor_ms {
            return conflict(format!(
                "`liveness.grace_min_ms` ({}) must be at least `truth.stall_ms` + 2 · \
                 `truth.tick_ms` ({grace_floor_ms}): a stall that is too short to be recorded must \
                 not cost a living service its verdict",
                liveness.grace_min_ms
            ));
        }
        let url = &server.public_url;
        let is_url = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        if !url.is_empty()
            && is_url.is_none_or(|rest| {
                rest.is_empty() || rest.ends_with('/') || rest.contains(['?', '#', ' '])
            })
        {
            return conflict(format!(
                "`server.public_url` ({url:?}) must be empty or like https://mep.example:443/prefix, \
                 without a slash at the end"
            ));
        }
        Ok(())
    }
}

impl Server {
    fn check_tls(&self) -> Result<(), ConfigError> {
        let set = |path: &std::path::Path| !path.as_os_str().is_empty();
        let conflict = |sentence: &str| Err(ConfigError::Conflict(sentence.to_owned()));
        if set(&self.tls_cert_file) != set(&self.tls_key_file) {
            return conflict(
                "`server.tls_cert_file` and `server.tls_key_file` go together: set both or none",
            );
        }
        if set(&self.tls_client_ca_file) && !set(&self.tls_cert_file) {
            return conflict(
                "`server.tls_client_ca_file` needs `server.tls_cert_file` and `server.tls_key_file`",
            );
        }
        Ok(())
    }
}
