//! The records of applications' own words, subscriptions, cursors and dead letters.

use serde::{Deserialize, Serialize};

use super::super::codec::{self, DecodeError};
use super::event::{state_number, state_of};
use crate::domain::service::{Category, JsonText};
use crate::domain::subscription::{CallbackUri, Filter};
use crate::domain::{
    AppInfo, AppInstanceId, Cursor, DeadLetter, Failing, Selection, Steady, Subscription,
    SubscriptionId, Wall,
};

#[derive(Serialize, Deserialize)]
struct AppInfoV1 {
    name: String,
    json: String,
}

pub(in crate::store) fn encode_app_info(info: &AppInfo) -> Vec<u8> {
    let record = AppInfoV1 {
        name: info.name.clone(),
        json: info.json.as_str().to_owned(),
    };
    codec::encode(1, &record)
}

pub(in crate::store) fn decode_app_info(bytes: &[u8]) -> Result<AppInfo, DecodeError> {
    let AppInfoV1 { name, json } = codec::decode_v1(bytes)?;
    Ok(AppInfo {
        name,
        json: JsonText::from_json(json),
    })
}

#[derive(Serialize, Deserialize)]
struct SubscriptionV1 {
    callback: String,
    selection: SelectionV1,
    states: Vec<u8>,
    is_local: Option<bool>,
    from: u64,
}

/// bincode writes the variant's number: append only.
#[derive(Serialize, Deserialize)]
enum SelectionV1 {
    All,
    Ids(Vec<String>),
    Names(Vec<String>),
    /// href, id, name, version.
    Categories(Vec<[String; 4]>),
}

/// Application and id are the key.
pub(in crate::store) fn encode_subscription(subscription: &Subscription) -> Vec<u8> {
    let Filter {
        selection,
        states,
        is_local,
    } = &subscription.filter;
    let category = |category: &Category| {
        let Category {
            href,
            id,
            name,
            version,
        } = category.clone();
        [href, id, name, version]
    };
    let record = SubscriptionV1 {
        callback: subscription.callback.as_str().to_owned(),
        selection: match selection {
            Selection::All => SelectionV1::All,
            Selection::Ids(ids) => SelectionV1::Ids(ids.clone()),
            Selection::Names(names) => SelectionV1::Names(names.clone()),
            Selection::Categories(all) => {
                SelectionV1::Categories(all.iter().map(category).collect())
            }
        },
        states: states.iter().copied().map(state_number).collect(),
        is_local: *is_local,
        from: subscription.from,
    };
    codec::encode(1, &record)
}

pub(in crate::store) fn decode_subscription(
    app: AppInstanceId,
    id: SubscriptionId,
    bytes: &[u8],
) -> Result<Subscription, DecodeError> {
    let record: SubscriptionV1 = codec::decode_v1(bytes)?;
    let callback = CallbackUri::stored(record.callback);
    let category = |[href, id, name, version]: [String; 4]| Category {
        href,
        id,
        name,
        version,
    };
    let selection = match record.selection {
        SelectionV1::All => Selection::All,
        SelectionV1::Ids(ids) => Selection::Ids(ids),
        SelectionV1::Names(names) => Selection::Names(names),
        SelectionV1::Categories(all) => {
            Selection::Categories(all.into_iter().map(category).collect())
        }
    };
    let states: Result<Vec<_>, _> = record.states.into_iter().map(state_of).collect();
    Ok(Subscription {
        id,
        app,
        callback,
        filter: Filter {
            selection,
            states: states?,
            is_local: record.is_local,
        },
        from: record.from,
    })
}

#[derive(Serialize, Deserialize)]
struct CursorV1 {
    next: u64,
    through: Option<u64>,
    failing: Option<FailingV1>,
}

#[derive(Serialize, Deserialize)]
struct FailingV1 {
    since_ms: u64,
    attempts: u32,
    retry_at_ms: u64,
    error: String,
}

pub(in crate::store) fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let failing = |failing: &Failing| FailingV1 {
        since_ms: failing.since.as_ms(),
        attempts: failing.attempts,
        retry_at_ms: failing.retry_at.as_ms(),
        error: failing.error.clone(),
    };
    let record = CursorV1 {
        next: cursor.next,
        through: cursor.through,
        failing: cursor.failing.as_ref().map(failing),
    };
    codec::encode(1, &record)
}

pub(in crate::store) fn decode_cursor(bytes: &[u8]) -> Result<Cursor, DecodeError> {
    let record: CursorV1 = codec::decode_v1(bytes)?;
    Ok(Cursor {
        next: record.next,
        through: record.through,
        failing: record.failing.map(|failing| Failing {
            since: Steady::from_ms(failing.since_ms),
            attempts: failing.attempts,
            retry_at: Steady::from_ms(failing.retry_at_ms),
            error: failing.error,
        }),
    })
}

#[derive(Serialize, Deserialize)]
struct DeadLetterV1 {
    at_ns: u64,
    error: String,
}

/// Subscription and sequence are the key.
pub(in crate::store) fn encode_dead_letter(letter: &DeadLetter) -> Vec<u8> {
    let record = DeadLetterV1 {
        at_ns: letter.at.as_ns(),
        error: letter.error.clone(),
    };
    codec::encode(1, &record)
}

pub(in crate::store) fn decode_dead_letter(
    subscription: SubscriptionId,
    sequence: u64,
    bytes: &[u8],
) -> Result<DeadLetter, DecodeError> {
    let DeadLetterV1 { at_ns, error } = codec::decode_v1(bytes)?;
    Ok(DeadLetter {
        subscription,
        sequence,
        at: Wall::from_ns(at_ns),
        error,
    })
}
