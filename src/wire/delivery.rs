//! What `mepulse admin subscriptions` and `mepulse admin dead-letters` tell.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::links::Links;
use super::report::rfc3339;
use super::subscription::SubscriptionInfo;
use crate::domain::{Cursor, DeadLetter, Event, Subscription, SubscriptionId};

/// One subscription, and how its delivery goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionReport {
    /// Whose it is.
    pub app_instance_id: String,
    /// Its id.
    pub subscription_id: String,
    /// As the API shows it.
    pub subscription: serde_json::Value,
    /// The first event that may not have been delivered.
    pub next_sequence: u64,
    /// Events that are still to be delivered.
    pub undelivered: u64,
    /// What goes wrong; absent while its callback takes notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingReport>,
    /// Events that were given up, as far as they are kept.
    pub dead_letters: usize,
}

/// A callback that does not take notifications. Times are steady milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailingReport {
    /// Since when.
    pub since_steady_ms: u64,
    /// How many attempts have failed since.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at_steady_ms: u64,
    /// What went wrong last.
    pub error: String,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterReport {
    /// To whom it could not be delivered.
    pub subscription_id: String,
    /// Which event.
    pub sequence: u64,
    /// When it was given up, RFC 3339.
    pub at: String,
    /// What went wrong last.
    pub error: String,
    /// What it was about; absent when the event is not kept any more.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// What an event was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The service.
    pub ser_instance_id: String,
    /// Its name.
    pub ser_name: String,
    /// `ADDED`, `REMOVED`, `STATE_CHANGED` or `ATTRIBUTES_CHANGED`.
    pub change_type: String,
    /// Its state afterwards.
    pub state: String,
}

/// A report that is made by reading a part of the log.
pub trait FromLog {
    /// Where reading has to begin, and before which event it may end; `None`: there is nothing to
    /// read.
    fn range(&self) -> Option<(u64, u64)>;

    /// Takes an event into account; each once, in order.
    fn see(&mut self, event: &Event);
}

/// Counts what is still to be delivered, event by event.
#[derive(Debug)]
pub struct Backlog {
    subscriptions: Vec<(SubscriptionReport, Subscription)>,
}

impl Backlog {
    /// Of these subscriptions, with these dead letters.
    pub fn new<'a>(
        subscriptions: impl Iterator<Item = (&'a Subscription, &'a Cursor)>,
        dead_letters: &[DeadLetter],
    ) -> Self {
        let mut dead: HashMap<SubscriptionId, usize> = HashMap::new();
        for letter in dead_letters {
            *dead.entry(letter.subscription).or_default() += 1;
        }
        let report = |(subscription, cursor): (&Subscription, &Cursor)| {
            // Path-absolute links: an offline look does not know the operator's prefix.
            let info = SubscriptionInfo::new(subscription, &Links::default());
            let failing = cursor.failing.as_ref().map(|failing| FailingReport {
                since_steady_ms: failing.since.as_ms(),
                attempts: failing.attempts,
                retry_at_steady_ms: failing.retry_at.as_ms(),
                error: failing.error.clone(),
            });
            let report = SubscriptionReport {
                app_instance_id: subscription.app.to_string(),
                subscription_id: subscription.id.to_string(),
                subscription: serde_json::to_value(info).unwrap_or_default(),
                next_sequence: cursor.next,
                undelivered: 0,
                failing,
                dead_letters: dead.get(&subscription.id).copied().unwrap_or(0),
            };
            (report, subscription.clone())
        };
        let mut subscriptions: Vec<_> = subscriptions.map(report).collect();
        subscriptions.sort_by(|(a, _), (b, _)| {
            (&a.app_instance_id, &a.subscription_id).cmp(&(&b.app_instance_id, &b.subscription_id))
        });
        Self { subscriptions }
    }

    /// The reports, by application and id.
    #[must_use]
    pub fn into_reports(self) -> Vec<SubscriptionReport> {
        let reports = self.subscriptions.into_iter();
        reports.map(|(report, _)| report).collect()
    }
}

impl FromLog for Backlog {
    fn range(&self) -> Option<(u64, u64)> {
        let next = self.subscriptions.iter();
        let first = next.map(|(report, _)| report.next_sequence).min()?;
        Some((first, u64::MAX))
    }

    fn see(&mut self, event: &Event) {
        let Some(notice) = event.notice() else { return };
        for (report, subscription) in &mut self.subscriptions {
            let is_due = notice.sequence >= report.next_sequence;
            report.undelivered += u64::from(is_due && subscription.filter.matches(&notice));
        }
    }
}

/// Finds out what dead letters were about.
#[derive(Debug)]
pub struct Letters {
    reports: Vec<DeadLetterReport>,
}

impl Letters {
    /// Of these, by subscription and sequence.
    #[must_use]
    pub fn new(letters: &[DeadLetter]) -> Self {
        let report = |letter: &DeadLetter| DeadLetterReport {
            subscription_id: letter.subscription.to_string(),
            sequence: letter.sequence,
            at: rfc3339(letter.at),
            error: letter.error.clone(),
            about: None,
        };
        Self {
            reports: letters.iter().map(report).collect(),
        }
    }

    /// The reports, in the order of the letters.
    #[must_use]
    pub fn into_reports(self) -> Vec<DeadLetterReport> {
        self.reports
    }
}

impl FromLog for Letters {
    fn range(&self) -> Option<(u64, u64)> {
        let sequences = || self.reports.iter().map(|report| report.sequence);
        Some((sequences().min()?, sequences().max()? + 1))
    }

    fn see(&mut self, event: &Event) {
        let Some(notice) = event.notice() else { return };
        let of_event = |report: &&mut DeadLetterReport| report.sequence == event.sequence;
        for report in self.reports.iter_mut().filter(of_event) {
            report.about = Some(About {
                ser_instance_id: notice.service.to_string(),
                ser_name: notice.subject.name.clone(),
                change_type: notice.change.as_str().to_owned(),
                state: notice.state.as_str().to_owned(),
            });
        }
    }
}
