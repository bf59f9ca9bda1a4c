//! What `mepulse admin` asks of a running server, over the data directory's socket. That socket is
//! as private as the directory itself.

use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{Request, Segment};
use super::services::{Source, json_array};
use crate::registry::{Entry, Registry};
use crate::wire::delivery::{Backlog, FromLog, Letters};
use crate::wire::report::{Counts, Known, ServiceDetail, ServiceReport, Status};
use crate::wire::story::{Forecast, Story};

/// A service of the view, as reports want it.
#[must_use]
pub fn known(entry: &Entry) -> Known<'_> {
    Known {
        key: &entry.key,
        name: entry.service.words().0,
        liveness: &entry.liveness,
    }
}

/// All services, one report each.
pub(super) async fn services(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let (policy, blind_spots) = {
        let view = api.registry.view();
        (view.policy, view.blind_spots.clone())
    };
    Ok(answer::ok_stream(json_array(
        api,
        Source::All(None),
        move |_, entry| {
            Some(answer::json(&ServiceReport::new(
                known(entry),
                policy.as_ref(),
                &blind_spots,
            )))
        },
    )))
}

/// One service with all that is known of it.
pub(super) async fn service(
    service: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    request.only_get()?;
    let view = api.registry.view();
    let entry = service.service()?.and_then(|id| view.service(&id));
    let entry = entry.ok_or_else(|| Problem::no_service(service.raw()))?;
    let detail = ServiceDetail::new(
        known(entry),
        &entry.service.service(),
        view.policy.as_ref(),
        &view.blind_spots,
    );
    Ok(answer::ok(&detail))
}

/// The story of one service, also of one that is gone.
pub(super) async fn why(service: Segment, request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let unknown = || Problem::no_service(service.raw());
    let id = service.service()?.ok_or_else(unknown)?;
    let events = api.registry.history(id).await?;
    let now = api.registry.now();
    let view = api.registry.view();
    let (policy, spots) = (view.policy.as_ref(), &view.blind_spots);
    let story = Story::new(now, view.service(&id).map(known), policy, spots, &events);
    Ok(answer::ok(&story.ok_or_else(unknown)?))
}

/// Who expires when if nothing beats from now on.
pub(super) async fn forecast(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let (policy, blind_spots) = {
        let view = api.registry.view();
        (view.policy, view.blind_spots.clone())
    };
    Ok(answer::ok_stream(json_array(
        api,
        Source::All(None),
        move |_, entry| {
            let forecast = Forecast::new(known(entry), policy.as_ref(), &blind_spots)?;
            Some(answer::json(&forecast))
        },
    )))
}

/// Events read from the log in one go.
const PAGE: usize = 512;

/// All subscriptions, and how their delivery goes.
pub(super) async fn subscriptions(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let registry = &api.registry;
    let dead_letters = registry.dead_letters().await?;
    let mut backlog = {
        let view = registry.view();
        let known = view
            .subscriptions()
            .map(|known| (known.subscription.as_ref(), &known.cursor));
        Backlog::new(known, &dead_letters)
    };
    read(registry, &mut backlog).await?;
    Ok(answer::ok(&backlog.into_reports()))
}

/// What could not be delivered.
pub(super) async fn dead_letters(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let mut letters = Letters::new(&api.registry.dead_letters().await?);
    read(&api.registry, &mut letters).await?;
    Ok(answer::ok(&letters.into_reports()))
}

/// Shows a report what it needs of the log, part by part.
async fn read(registry: &Registry, report: &mut impl FromLog) -> Result<(), Problem> {
    let Some((mut from, until)) = report.range() else {
        return Ok(());
    };
    let until = until.min(*registry.head().borrow());
    while from < until {
        let page = registry.events(from, PAGE).await?;
        page.events.iter().for_each(|event| report.see(event));
        from = page.next;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The server and its store.
pub(super) async fn status(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let not_ready = api.registry.condition().not_ready;
    let now = api.registry.now();
    let view = api.registry.view();
    let counts = Counts::new(view.apps_count(), |state| view.count(state));
    let undecodable = u64::try_from(api.metrics.undecodable_rows.get()).unwrap_or(0);
    let status = Status::running(
        &api.about,
        counts,
        &view.blind_spots,
        now,
        not_ready,
        undecodable,
    );
    Ok(answer::ok(&status))
}

/// Takes over credentials that have changed; done when the applications are known.
pub(super) async fn credentials(request: Request, api: Api) -> Result<Answer, Problem> {
    if request.method != Method::POST {
        return Err(Problem::method("POST"));
    }
    api.gate.refresh(&api.registry).await?;
    match api.gate.authority().standing() {
        standing if standing.is_empty() => Ok(answer::no_content()),
        standing => Err(Problem::credentials_not_in_force(standing)),
    }
}
