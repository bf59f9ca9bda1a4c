//! Applications register what they are.
//!
//! Source: GS MEC 011 V3.1.1, 7.2.15 and 7.2.16 (V2.2.1 has no such resource).

use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::proof::must_act_for;
use super::request::{Request, Segment};
use crate::domain::AppInstanceId;
use crate::registry;
use crate::wire::app_info::{self, AppInfoBody};

/// `/registrations`
pub(super) async fn collection(request: Request, api: Api) -> Result<Answer, Problem> {
    if request.method != Method::POST {
        return Err(Problem::method("POST"));
    }
    request.no_query()?;
    let claimed = request.claimed_application()?;
    let caller = request.caller().clone();
    let body = api.body(request).await?;
    let (named, info) = app_info::parse(&body)?;
    let app = match (claimed, named) {
        (Some(claimed), Some(named)) if claimed != named => {
            return Err(Problem::not_yours(format!(
                "the caller is application instance {:?}, the body names {:?}",
                claimed.as_str(),
                named.as_str()
            )));
        }
        (_, Some(app)) | (Some(app), None) => app,
        (None, None) => AppInstanceId::random(),
    };
    must_act_for(&caller, &app)?;
    api.registry.register_app(app.clone(), info.clone()).await?;
    Ok(answer::created(
        &api.links.registration(&app),
        &AppInfoBody::new(&app, &info),
    ))
}

/// `/registrations/{appInstanceId}`
pub(super) async fn item(app: Segment, request: Request, api: Api) -> Result<Answer, Problem> {
    let unknown = |app: &AppInstanceId| {
        let known = api.registry.view().app(app).is_some();
        (!known).then(|| Problem::from(registry::Error::UnknownApp(app.clone())))
    };
    match *request.verb() {
        Method::GET => {
            let app = request.application(&app)?;
            let info = match api.registry.view().app(&app) {
                None => return Err(registry::Error::UnknownApp(app).into()),
                Some(known) => known.record.info.clone(),
            };
            let info = info.ok_or_else(|| registry::Error::NotRegistered(app.clone()))?;
            request.no_query()?;
            Ok(answer::ok(&AppInfoBody::new(&app, &info)))
        }
        Method::PUT => {
            let app = request.application(&app)?;
            if let Some(problem) = unknown(&app) {
                return Err(problem);
            }
            request.no_query()?;
            let body = api.body(request).await?;
            let (named, info) = app_info::parse(&body)?;
            if let Some(named) = named.filter(|named| *named != app) {
                return Err(Problem::malformed(format!(
                    "appInstanceId is {:?}, but the path names {:?}; an application cannot change its id",
                    named.as_str(),
                    app.as_str()
                )));
            }
            api.registry.replace_app(app, info).await?;
            Ok(answer::no_content())
        }
        Method::DELETE => {
            let app = request.application(&app)?;
            if let Some(problem) = unknown(&app) {
                return Err(problem);
            }
            request.no_query()?;
            api.registry.remove_app(app).await?;
            Ok(answer::no_content())
        }
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}
