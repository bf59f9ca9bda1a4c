//! What a subscriber is to be told, worked out here once more, and held against what was sent.

use std::collections::{BTreeMap, BTreeSet};

use mepulse::domain::service::Category;
use mepulse::domain::{
    Attributes, DeadLetter, Event, Happening, Selection, ServiceState, Subject, Subscription,
};

use super::life::Sent;
use crate::delivery::told::{Kind, Reference, State, references};

fn state(state: ServiceState) -> State {
    match state {
        ServiceState::Active => State::Active,
        ServiceState::Inactive => State::Inactive,
        ServiceState::Suspended => State::Suspended,
    }
}

/// What everybody is told who wants to know of it.
fn reference(event: &Event) -> Option<Reference> {
    let (state, kind) = match &event.what {
        Happening::Registered { state: to, .. } => (state(*to), Kind::Added),
        Happening::Suspended(_) => (State::Suspended, Kind::StateChanged),
        Happening::Revived { .. } => (State::Active, Kind::StateChanged),
        Happening::Replaced {
            from,
            to,
            attributes,
            ..
        } => match attributes {
            Attributes::Same if from == to => return None,
            Attributes::Same => (state(*to), Kind::StateChanged),
            _ => (state(*to), Kind::AttributesChanged),
        },
        Happening::Removed { state: last } => (state(*last), Kind::Removed),
        Happening::Forgotten { .. } => (State::Suspended, Kind::Removed),
    };
    Some(Reference {
        service: event.key.service.to_string().parse().unwrap(),
        name: event.subject.as_ref()?.name.as_str().into(),
        state,
        kind,
    })
}

fn selects(selection: &Selection<Category>, service: &str, subject: &Subject) -> bool {
    match selection {
        Selection::All => true,
        Selection::Ids(ids) => ids.iter().any(|id| id == service),
        Selection::Names(names) => names.contains(&subject.name),
        Selection::Categories(categories) => categories
            .iter()
            .any(|category| Some(&category.id) == subject.category_id.as_ref()),
    }
}

/// What one subscriber is to be told of an event, if anything.
fn for_one(subscription: &Subscription, event: &Event) -> Option<Reference> {
    let reference = reference(event)?;
    let filter = &subscription.filter;
    let service = event.key.service.to_string();
    let former = match &event.what {
        Happening::Replaced {
            attributes: Attributes::Renamed(former),
            ..
        } => Some(&**former),
        _ => None,
    };
    let mut subjects = event.subject.iter().chain(former);
    let wanted = event.sequence >= subscription.from
        && subjects.any(|subject| selects(&filter.selection, &service, subject))
        && (filter.states.is_empty()
            || filter
                .states
                .iter()
                .any(|wanted| state(*wanted) == reference.state));
    wanted.then_some(reference)
}

/// What came at one callback, sorted out.
struct Account {
    /// Everything this subscriber is to be told.
    wanted: BTreeMap<u64, Reference>,
    /// What of it arrived, or was given up.
    settled: BTreeSet<u64>,
}

impl Account {
    fn new(
        subscription: &Subscription,
        events: &BTreeMap<u64, Event>,
        letters: &[DeadLetter],
    ) -> Self {
        let wanted = events
            .values()
            .filter_map(|event| Some((event.sequence, for_one(subscription, event)?)));
        let given_up = letters.iter().filter(|l| l.subscription == subscription.id);
        Self {
            wanted: wanted.collect(),
            settled: given_up.map(|letter| letter.sequence).collect(),
        }
    }

    /// The events in a notification that follows the one with the key `after`: all there are up to
    /// its own key, but for the oldest of them, if those were given up.
    fn covered(&self, after: Option<u64>, sent: &Sent) -> Vec<u64> {
        let key = sent.key;
        let first = after.map_or(0, |key| key + 1);
        assert!(first <= key, "{key} came after {after:?}");
        let told = references(&sent.body);
        let (sequences, wanted): (Vec<_>, Vec<_>) = self.wanted.range(first..=key).unzip();
        let passed_over = wanted.len().saturating_sub(told.len());
        assert_eq!(
            wanted[passed_over..],
            told.iter().collect::<Vec<_>>(),
            "in {key}, after {after:?}"
        );
        assert_eq!(sequences.last(), Some(&&key), "it is the last event's");
        let (passed_over, covered) = sequences.split_at(passed_over);
        let lost = passed_over.iter().find(|s| !self.settled.contains(s));
        assert_eq!(lost, None, "{key} comes before it");
        covered.iter().copied().copied().collect()
    }
}

/// Holds what was sent against what happened: in order, without gaps, every repeat the same as the
/// one before it. Gives back the events that never arrived.
pub(super) fn check(
    subscription: &Subscription,
    events: &BTreeMap<u64, Event>,
    sent: &[Sent],
    letters: &[DeadLetter],
) -> Vec<u64> {
    let mut account = Account::new(subscription, events, letters);
    let mut last: Option<&Sent> = None;
    let mut covered = Vec::new();
    let mut arrived = Vec::new();
    for sent in sent
        .iter()
        .filter(|s| s.to == subscription.callback.as_str())
    {
        match last {
            Some(last) if last.key == sent.key => {
                assert_eq!(
                    last.body, sent.body,
                    "another one under the key {}",
                    sent.key
                );
            }
            _ => covered = account.covered(last.map(|last| last.key), sent),
        }
        if sent.taken {
            arrived.extend_from_slice(&covered);
        }
        last = Some(sent);
    }
    account.settled.extend(arrived);
    let missing = account.wanted.keys();
    let missing = missing.filter(|sequence| !account.settled.contains(sequence));
    missing.copied().collect()
}
