//! `admin why` and `admin forecast` for people.

use chrono::{DateTime, TimeDelta, Utc};

use super::human::{duration, relative, table};
use crate::wire::story::{CreditReport, EventReport, EvidenceReport, Forecast, Story, What};

/// One instant on both clocks: from it, any steady time becomes a date.
#[derive(Clone, Copy)]
struct Anchor {
    date: Option<DateTime<Utc>>,
    steady_ms: u64,
}

impl Anchor {
    fn new(rfc3339: &str, steady_ms: u64) -> Self {
        let date = DateTime::parse_from_rfc3339(rfc3339).ok();
        Self {
            date: date.map(|date| date.to_utc()),
            steady_ms,
        }
    }

    fn time(self, steady_ms: u64) -> String {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let offset = TimeDelta::milliseconds(signed(steady_ms) - signed(self.steady_ms));
        let date = self.date.and_then(|date| date.checked_add_signed(offset));
        date.map_or("?".to_owned(), |date| {
            date.format("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
        })
    }
}

/// The story as text.
pub(super) fn why(story: &Story) -> String {
    let now = Anchor::new(&story.now, story.now_steady_ms);
    let mut lines = Vec::new();
    match &story.service {
        Some(service) => lines.push(format!(
            "service {} ({}) of {} is {}",
            service.ser_instance_id, service.ser_name, service.app_instance_id, service.state
        )),
        None => lines.push("this service is gone; what happened to it:".to_owned()),
    }
    if story.events.is_empty() {
        lines.push("  nothing is kept of its past".to_owned());
    }
    for event in &story.events {
        happened(event, &mut lines);
    }
    if let Some(standing) = &story.standing {
        lines.push(format!("  {}  as things stand", now.time(now.steady_ms)));
        rests_on(standing, now, &mut lines);
        lines.push(format!(
            "      if nothing is heard, SUSPENDED {}, at {}",
            relative(standing.deadline_steady_ms, story.now_steady_ms),
            now.time(standing.deadline_steady_ms)
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn happened(event: &EventReport, lines: &mut Vec<String>) {
    let at = Anchor::new(&event.at, event.steady_ms);
    let interval = |secs: &Option<u32>| match secs {
        Some(secs) => format!("a heartbeat every {secs} s"),
        None => "no heartbeat agreed on".to_owned(),
    };
    let what = match &event.what {
        What::Registered {
            state,
            liveness_interval,
        } => format!("registered {state}, {}", interval(liveness_interval)),
        What::Suspended { .. } => "SUSPENDED for silence".to_owned(),
        What::Revived { since_steady_ms } => format!(
            "a heartbeat: ACTIVE again after {}",
            duration(event.steady_ms.saturating_sub(*since_steady_ms))
        ),
        What::Replaced {
            from,
            to,
            liveness_interval,
        } if from == to => format!("replaced, still {to}, {}", interval(liveness_interval)),
        What::Replaced {
            from,
            to,
            liveness_interval,
        } => format!("replaced, {from} to {to}, {}", interval(liveness_interval)),
        What::Removed { state } => format!("removed by its producer, was {state}"),
        What::Forgotten { since_steady_ms } => format!(
            "removed: SUSPENDED for {} without coming back",
            duration(event.steady_ms.saturating_sub(*since_steady_ms))
        ),
    };
    lines.push(format!("  {}  {what}", at.time(at.steady_ms)));
    if let What::Suspended { evidence } = &event.what {
        rests_on(evidence, at, lines);
        let late_ms = event.steady_ms.saturating_sub(evidence.deadline_steady_ms);
        lines.push(format!(
            "      nothing heard by {}; declared {} later",
            at.time(evidence.deadline_steady_ms),
            duration(late_ms)
        ));
    }
}

/// What a deadline rests on, line by line.
fn rests_on(evidence: &EvidenceReport, at: Anchor, lines: &mut Vec<String>) {
    let heard = match evidence.beats {
        0 => "no heartbeat yet; its timer began".to_owned(),
        count => format!("heartbeat {count} was the last; the timer began"),
    };
    lines.push(format!(
        "      {heard} {}",
        at.time(evidence.base_steady_ms)
    ));
    let earliest_ms = evidence.base_steady_ms + evidence.interval_ms + evidence.grace_ms;
    lines.push(format!(
        "      a living one may be quiet for its interval of {} and {} of grace: until {}",
        duration(evidence.interval_ms),
        duration(evidence.grace_ms),
        at.time(earliest_ms)
    ));
    if evidence.earlier_credits > 0 {
        lines.push(format!(
            "      {} earlier blind spots moved that",
            evidence.earlier_credits
        ));
    }
    for credit in &evidence.credits {
        let length = if credit.length_known {
            duration(credit.end_steady_ms.saturating_sub(credit.start_steady_ms))
        } else {
            "of unknown length".to_owned()
        };
        let why = if evidence.promised {
            "as it promised"
        } else {
            "its interval, nothing promised"
        };
        lines.push(format!(
            "      blind ({}) until {}, {length}: it tries again within {} ({why}), so until {}",
            credit.cause,
            at.time(credit.end_steady_ms),
            duration(evidence.retry_ms),
            at.time(credit.deadline_steady_ms)
        ));
    }
}

/// The forecast as a table, the earliest first.
pub(super) fn forecast(forecasts: &[Forecast], now_steady_ms: u64) -> String {
    let header = ["SERVICE", "APPLICATION", "NAME", "SUSPENDED", "CREDIT FROM"];
    let row = |forecast: &Forecast| {
        let evidence = &forecast.evidence;
        [
            forecast.ser_instance_id.clone(),
            forecast.app_instance_id.clone(),
            forecast.ser_name.clone(),
            relative(evidence.deadline_steady_ms, now_steady_ms),
            credits(evidence, now_steady_ms),
        ]
    };
    table(Some(header), forecasts.iter().map(row).collect())
}

fn credits(evidence: &EvidenceReport, now_steady_ms: u64) -> String {
    let one = |credit: &CreditReport| {
        format!(
            "{} that ended {}",
            credit.cause,
            relative(credit.end_steady_ms, now_steady_ms)
        )
    };
    let mut texts: Vec<_> = evidence.credits.iter().map(one).collect();
    if evidence.earlier_credits > 0 {
        texts.insert(0, format!("{} earlier", evidence.earlier_credits));
    }
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(", ")
    }
}
