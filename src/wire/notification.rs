//! `ServiceAvailabilityNotification`: what is sent to the callback of a subscription.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.4.2.

use serde::Serialize;

use super::links::{Link, Links};
use crate::domain::Notice;
use crate::domain::subscription::ChangeType;

/// `notificationType`: not the name of the type, the standard wants it so.
const TYPE: &str = "SerAvailabilityNotification";

/// The body of a notification.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAvailabilityNotification<'a> {
    notification_type: &'static str,
    service_references: Vec<ServiceReference<'a>>,
    #[serde(rename = "_links")]
    links: SubscriptionOf,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceReference<'a> {
    /// Of a service that is gone there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    ser_name: &'a str,
    ser_instance_id: String,
    state: &'static str,
    change_type: &'static str,
}

#[derive(Debug, Serialize)]
struct SubscriptionOf {
    subscription: Link,
}

impl<'a> ServiceAvailabilityNotification<'a> {
    /// Tells of one or more changes, in the order given. `subscription` is the URI of the
    /// subscription that asked for it.
    #[must_use]
    pub fn new(notices: &[Notice<'a>], subscription: String, links: &Links) -> Self {
        let reference = |notice: &Notice<'a>| ServiceReference {
            link: (notice.change != ChangeType::Removed).then(|| Link {
                href: links.service_for_all(notice.service),
            }),
            ser_name: &notice.subject.name,
            ser_instance_id: notice.service.to_string(),
            state: notice.state.as_str(),
            change_type: notice.change.as_str(),
        };
        Self {
            notification_type: TYPE,
            service_references: notices.iter().map(reference).collect(),
            links: SubscriptionOf {
                subscription: Link { href: subscription },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{ServiceId, ServiceState, Subject};
    use crate::wire::Dialect;

    #[test]
    fn what_is_gone_has_no_link() {
        let links = Links::new("https://mep.example/p", Dialect::Standard);
        let subject = |name: &str| Subject {
            name: name.to_owned(),
            category_id: Some("c".to_owned()),
        };
        let (now, before) = (subject("ünï"), subject("old"));
        for (change, state, change_name, state_name, linked) in [
            (
                ChangeType::Added,
                ServiceState::Active,
                "ADDED",
                "ACTIVE",
                true,
            ),
            (
                ChangeType::StateChanged,
                ServiceState::Suspended,
                "STATE_CHANGED",
                "SUSPENDED",
                true,
            ),
            (
                ChangeType::AttributesChanged,
                ServiceState::Inactive,
                "ATTRIBUTES_CHANGED",
                "INACTIVE",
                true,
            ),
            (
                ChangeType::Removed,
                ServiceState::Inactive,
                "REMOVED",
                "INACTIVE",
                false,
            ),
        ] {
            let notice = Notice {
                sequence: 7,
                service: ServiceId::from_bytes([0xab; 16]),
                subject: &now,
                former: Some(&before),
                state,
                change,
            };
            let id = "abababab-abab-abab-abab-abababababab";
            let mut reference = json!({
                "serName": "ünï", "serInstanceId": id, "state": state_name,
                "changeType": change_name
            });
            if linked {
                let root = "https://mep.example/p/mec_service_mgmt/v1";
                reference["link"] = json!({"href": format!("{root}/services/{id}")});
            }
            let sent = ServiceAvailabilityNotification::new(&[notice, notice], "/s".into(), &links);
            assert_eq!(
                serde_json::to_value(sent).unwrap(),
                json!({
                    "notificationType": "SerAvailabilityNotification",
                    "serviceReferences": [reference.clone(), reference],
                    "_links": {"subscription": {"href": "/s"}}
                })
            );
        }
    }
}
