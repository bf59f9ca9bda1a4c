//! Subscriptions to service availability.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.8 and 8.2.9.

use std::sync::Arc;

use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{Request, Segment};
use crate::domain::Subscription;
use crate::registry;
use crate::wire::subscription::{self, SubscriptionInfo, SubscriptionLinkList};

/// `/applications/{appInstanceId}/subscriptions`
pub(super) async fn collection(
    app: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let app = request.application(&app)?;
            let ids = match api.registry.view().app(&app) {
                Some(known) => known.subscriptions.iter().copied().collect::<Vec<_>>(),
                None => return Err(registry::Error::UnknownApp(app).into()),
            };
            request.no_query()?;
            Ok(answer::ok(&SubscriptionLinkList::new(
                &app, ids, &api.links,
            )))
        }
        Method::POST => {
            let app = request.application(&app)?;
            if api.registry.view().app(&app).is_none() {
                return Err(registry::Error::UnknownApp(app).into());
            }
            request.no_query()?;
            let body = api.body(request).await?;
            let (callback, filter) = subscription::parse(&body)?;
            // Names are looked up, and looked at, at every connection; addresses can be now.
            api.guard.check_host(&callback).map_err(|forbidden| {
                Problem::malformed(format!("callbackReference: {forbidden}"))
            })?;
            let subscription = api.registry.subscribe(app, callback, filter).await?;
            let location = api.links.subscription(&subscription.app, subscription.id);
            let info = SubscriptionInfo::new(&subscription, &api.links);
            Ok(answer::created(&location, &info))
        }
        _ => Err(Problem::method("GET, HEAD, POST")),
    }
}

/// The subscription that a path names, if this application has it.
fn find(
    app: &Segment,
    subscription: &Segment,
    request: &Request,
    api: &Api,
) -> Result<Arc<Subscription>, Problem> {
    let app = request.application(app)?;
    let id = subscription.subscription()?;
    let view = api.registry.view();
    if view.app(&app).is_none() {
        return Err(registry::Error::UnknownApp(app).into());
    }
    let found = id.and_then(|id| view.subscription_of(&app, &id)).cloned();
    found.ok_or_else(|| Problem::no_subscription(subscription.raw()))
}

/// `/applications/{appInstanceId}/subscriptions/{subscriptionId}`
pub(super) async fn item(
    app: Segment,
    subscription: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let found = find(&app, &subscription, &request, &api)?;
            request.no_query()?;
            Ok(answer::ok(&SubscriptionInfo::new(&found, &api.links)))
        }
        Method::DELETE => {
            let found = find(&app, &subscription, &request, &api)?;
            request.no_query()?;
            let app = found.app.clone();
            api.registry.unsubscribe(app, found.id).await?;
            Ok(answer::no_content())
        }
        _ => Err(Problem::method("GET, HEAD, DELETE")),
    }
}
