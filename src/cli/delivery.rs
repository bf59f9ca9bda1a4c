//! Subscriptions and dead letters for people.

use super::human::{relative, table};
use crate::wire::delivery::{DeadLetterReport, SubscriptionReport};

/// `admin subscriptions`.
pub(super) fn subscriptions(reports: &[SubscriptionReport], steady_now_ms: u64) -> String {
    let header = [
        "SUBSCRIPTION",
        "APPLICATION",
        "CALLBACK",
        "UNDELIVERED",
        "DEAD",
        "STATE",
    ];
    let row = |report: &SubscriptionReport| {
        let callback = report.subscription.get("callbackReference");
        let state = match &report.failing {
            None => "well".to_owned(),
            Some(failing) => format!(
                "failing since {}, {} attempts, next {}: {}",
                relative(failing.since_steady_ms, steady_now_ms),
                failing.attempts,
                relative(failing.retry_at_steady_ms, steady_now_ms),
                failing.error
            ),
        };
        [
            report.subscription_id.clone(),
            report.app_instance_id.clone(),
            callback
                .and_then(|callback| callback.as_str())
                .unwrap_or("-")
                .to_owned(),
            report.undelivered.to_string(),
            report.dead_letters.to_string(),
            state,
        ]
    };
    table(Some(header), reports.iter().map(row).collect())
}

/// `admin dead-letters`.
pub(super) fn dead_letters(reports: &[DeadLetterReport]) -> String {
    let header = [
        "SUBSCRIPTION",
        "EVENT",
        "GIVEN UP",
        "SERVICE",
        "NAME",
        "CHANGE",
        "STATE",
        "ERROR",
    ];
    let row = |report: &DeadLetterReport| {
        let about = |part: fn(&crate::wire::delivery::About) -> &String| {
            let about = report.about.as_ref().map(part);
            about.map_or("-".to_owned(), Clone::clone)
        };
        [
            report.subscription_id.clone(),
            report.sequence.to_string(),
            report.at.clone(),
            about(|about| &about.ser_instance_id),
            about(|about| &about.ser_name),
            about(|about| &about.change_type),
            about(|about| &about.state),
            report.error.clone(),
        ]
    };
    table(Some(header), reports.iter().map(row).collect())
}
