//! `SerAvailabilityNotificationSubscription` and the list of an application's subscriptions.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.3.

use serde::Serialize;

use super::links::{Link, Links};
use super::member::{Malformed, Members};
use super::query::{hyphenated, one_kind};
use super::service::{CategoryRef, STATES, category};
use crate::domain::service::Category;
use crate::domain::subscription::{CallbackUri, Filter};
use crate::domain::{AppInstanceId, Selection, ServiceState, Subscription, SubscriptionId};

/// `subscriptionType`, the only one of this API.
const TYPE: &str = "SerAvailabilityNotificationSubscription";

/// Elements in one array of `filteringCriteria` at the most: every event is held against them.
pub const CRITERIA_MAX: usize = 1000;

/// Reads the body of a POST. `_links` belongs to the platform and is ignored.
///
/// Source: GS MEC 011 V2.2.1, 8.1.3.2.
///
/// # Errors
/// [`Malformed`], naming the member; also for more than [`CRITERIA_MAX`] elements in an array.
pub fn parse(body: &[u8]) -> Result<(CallbackUri, Filter), Malformed> {
    let mut members = Members::parse(body)?;
    members.word("subscriptionType", &[(TYPE, ())])?;
    let callback = CallbackUri::parse(&members.text("callbackReference")?)
        .map_err(|error| Malformed::new(format!("callbackReference {error}")))?;
    let filter = match members.optional_object("filteringCriteria")? {
        Some(criteria) => filter(criteria)?,
        None => Filter {
            selection: Selection::All,
            states: Vec::new(),
            is_local: None,
        },
    };
    Ok((callback, filter))
}

fn filter(mut criteria: Members) -> Result<Filter, Malformed> {
    let paths = ["serInstanceIds", "serNames", "serCategories", "states"]
        .map(|name| criteria.path_of(name));
    let [ids_path, names_path, categories_path, states_path] = &paths;
    let ids = some(ids_path, criteria.optional_texts("serInstanceIds")?)?;
    let names = some(names_path, criteria.optional_texts("serNames")?)?;
    let categories = some(categories_path, criteria.optional_objects("serCategories")?)?;
    let categories: Option<Vec<Category>> = categories
        .map(|list| list.into_iter().map(category).collect::<Result<_, _>>())
        .transpose()?;
    let states = some(states_path, criteria.optional_words("states", &STATES)?)?;
    let selection = one_kind([
        (ids_path, ids.map(|ids| Selection::Ids(hyphenated(ids)))),
        (names_path, names.map(Selection::Names)),
        (categories_path, categories.map(Selection::Categories)),
    ])?;
    Ok(Filter {
        selection,
        states: states.unwrap_or_default(),
        is_local: criteria.optional_bool("isLocal")?,
    })
}

/// A bounded array; an empty one counts as absent.
fn some<T>(path: &str, list: Option<Vec<T>>) -> Result<Option<Vec<T>>, Malformed> {
    match list.as_ref().map_or(0, Vec::len) {
        0 => Ok(None),
        1..=CRITERIA_MAX => Ok(list),
        count => Err(Malformed::new(format!(
            "{path} has {count} elements; at most {CRITERIA_MAX} are taken"
        ))),
    }
}

/// `SerAvailabilityNotificationSubscription` as answered. Source: GS MEC 011 V2.2.1, 8.1.3.2.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionInfo<'a> {
    subscription_type: &'static str,
    callback_reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filtering_criteria: Option<FilteringCriteria<'a>>,
    #[serde(rename = "_links")]
    links: OwnLink,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct FilteringCriteria<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ser_instance_ids: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ser_names: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ser_categories: Vec<CategoryRef<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    states: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_local: Option<bool>,
}

#[derive(Debug, Serialize)]
struct OwnLink {
    #[serde(rename = "self")]
    own: Link,
}

impl<'a> SubscriptionInfo<'a> {
    /// Renders a subscription.
    #[must_use]
    pub fn new(subscription: &'a Subscription, links: &Links) -> Self {
        Self {
            subscription_type: TYPE,
            callback_reference: subscription.callback.as_str(),
            filtering_criteria: FilteringCriteria::new(&subscription.filter),
            links: OwnLink {
                own: Link {
                    href: links.subscription(&subscription.app, subscription.id),
                },
            },
        }
    }
}

impl<'a> FilteringCriteria<'a> {
    /// `None` for a filter that lets everything through.
    fn new(filter: &'a Filter) -> Option<Self> {
        let all = matches!(filter.selection, Selection::All);
        if all && filter.states.is_empty() && filter.is_local.is_none() {
            return None;
        }
        let rest = Self {
            states: filter
                .states
                .iter()
                .copied()
                .map(ServiceState::as_str)
                .collect(),
            is_local: filter.is_local,
            ..Self::default()
        };
        Some(match &filter.selection {
            Selection::All => rest,
            Selection::Ids(ids) => Self {
                ser_instance_ids: ids,
                ..rest
            },
            Selection::Names(names) => Self {
                ser_names: names,
                ..rest
            },
            Selection::Categories(categories) => Self {
                ser_categories: categories.iter().map(CategoryRef::new).collect(),
                ..rest
            },
        })
    }
}

/// `SubscriptionLinkList`. Source: GS MEC 011 V2.2.1, 8.1.3.
#[derive(Debug, Serialize)]
pub struct SubscriptionLinkList {
    #[serde(rename = "_links")]
    links: ListLinks,
}

#[derive(Debug, Serialize)]
struct ListLinks {
    #[serde(rename = "self")]
    own: Link,
    subscriptions: Vec<SubscriptionLink>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionLink {
    href: String,
    subscription_type: &'static str,
}

impl SubscriptionLinkList {
    /// Lists an application's subscriptions, in the order given.
    #[must_use]
    pub fn new(
        app: &AppInstanceId,
        ids: impl IntoIterator<Item = SubscriptionId>,
        links: &Links,
    ) -> Self {
        let link = |id| SubscriptionLink {
            href: links.subscription(app, id),
            subscription_type: TYPE,
        };
        Self {
            links: ListLinks {
                own: Link {
                    href: links.subscriptions(app),
                },
                subscriptions: ids.into_iter().map(link).collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
