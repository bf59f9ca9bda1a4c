//! What subscribers were told, held against what happened.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use uuid::Uuid;

use super::sink::Arrival;

/// `state`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum State {
    Active,
    Inactive,
    Suspended,
}

/// `changeType`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Kind {
    Added,
    Removed,
    StateChanged,
    AttributesChanged,
}

/// An element of `serviceReferences`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    #[serde(rename = "serInstanceId", deserialize_with = "id")]
    pub(super) service: Uuid,
    #[serde(rename = "serName")]
    pub(super) name: Box<str>,
    pub(super) state: State,
    #[serde(rename = "changeType")]
    pub(super) kind: Kind,
}

fn id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// What the body of a notification tells of.
pub(super) fn references(body: &[u8]) -> Vec<Reference> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        notification_type: String,
        service_references: Vec<Reference>,
    }
    let body: Body = serde_json::from_slice(body).unwrap();
    assert_eq!(body.notification_type, "SerAvailabilityNotification");
    assert!(!body.service_references.is_empty());
    body.service_references
}

/// What happened to each service, in order.
pub(super) type History = BTreeMap<Uuid, Vec<(Box<str>, State, Kind)>>;

/// What one subscriber was told, each notification once.
pub(super) struct Told<'a> {
    notifications: Vec<(&'a Arrival, bool)>,
    repeats: usize,
}

/// The outcome in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) happened: usize,
    pub(super) delivered: usize,
    pub(super) duplicates: usize,
    pub(super) lost: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            happened,
            delivered,
            duplicates,
            lost,
        } = self;
        write!(
            f,
            "{happened} happened, {delivered} delivered, {duplicates} repeats, {lost} lost"
        )
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.happened += other.happened;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.lost += other.lost;
    }
}

impl<'a> Told<'a> {
    /// Sorts out repeats: they are the same to the last byte, and new notifications come in order.
    pub(super) fn new(arrivals: &'a [Arrival]) -> Self {
        let mut known: BTreeMap<u64, usize> = BTreeMap::new();
        let mut told = Self {
            notifications: Vec::new(),
            repeats: 0,
        };
        for arrival in arrivals {
            if let Some(index) = known.get(&arrival.key) {
                let (first, confirmed) = &mut told.notifications[*index];
                assert_eq!(
                    (first.fingerprint, &first.references),
                    (arrival.fingerprint, &arrival.references),
                    "two notifications under the key {}",
                    arrival.key
                );
                *confirmed |= arrival.confirmed;
                told.repeats += 1;
                continue;
            }
            if let Some((last, _)) = told.notifications.last() {
                assert!(
                    last.key < arrival.key,
                    "{} came after {}",
                    arrival.key,
                    last.key
                );
            }
            known.insert(arrival.key, told.notifications.len());
            told.notifications.push((arrival, arrival.confirmed));
        }
        told
    }

    /// Of a subscriber who wants everything: the keys count the events.
    pub(super) fn wants_everything(self) -> Self {
        for pair in self.notifications.windows(2) {
            let [(before, _), (after, _)] = pair else {
                continue;
            };
            let events = u64::try_from(after.references.len()).unwrap();
            assert_eq!(
                before.key + events,
                after.key,
                "a notification of {events} events follows that with the key {}",
                before.key
            );
        }
        self
    }

    /// What was confirmed.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = &'a Reference> {
        let confirmed = self
            .notifications
            .iter()
            .filter(|(_, confirmed)| *confirmed);
        confirmed.flat_map(|(arrival, _)| &arrival.references)
    }

    /// Each service's history was told, all of it, in order, and nothing else.
    pub(super) fn is_all_of(&self, happened: &History) -> Figures {
        let mut found = History::new();
        for told in self.confirmed() {
            let change = (told.name.clone(), told.state, told.kind);
            found.entry(told.service).or_default().push(change);
        }
        let count = |history: &History| history.values().map(Vec::len).sum::<usize>();
        let figures = Figures {
            happened: count(happened),
            delivered: count(&found),
            duplicates: self.repeats,
            lost: count(happened).saturating_sub(count(&found)),
        };
        for (service, history) in happened {
            let told = found.remove(service).unwrap_or_default();
            assert_eq!(&told, history, "of {service}; {figures}");
        }
        assert!(found.is_empty(), "nobody knows of {found:?}");
        figures
    }
}
