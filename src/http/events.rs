//! What happens, as server-sent events: for consumers who cannot be called back. Our extension.
//!
//! Every event has the notification that a subscriber would get as its data, and its sequence as its
//! id. A client that comes back says the last one it has seen (`Last-Event-ID`), as browsers do by
//! themselves, and gets what it missed from the log.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::proof::Proof;
use super::request::Request;
use crate::domain::{Caller, Selection};
use crate::metrics::Metrics;
use crate::registry::Page;
use crate::wire::notification::ServiceAvailabilityNotification;
use crate::wire::query;

/// Events read in one go.
const PAGE: usize = 64;
/// A silent stream says so at least this often, so that nobody between us takes it for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// `/services/events`
pub(super) async fn stream(request: Request, api: Api) -> Result<Answer, Problem> {
    request.must_get()?;
    let selection = query::parse_watch(request.query())?;
    let seen = request.header("last-event-id")?.map(|text| {
        text.trim().parse::<u64>().map_err(|_| {
            Problem::malformed(format!(
                "the Last-Event-ID header is {text:?}; the id of an event, a whole number, was expected"
            ))
        })
    });
    let seen = seen.transpose()?;
    let place = api.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::too_many_streams())?;
    let head = *api.registry.head().borrow();
    let next = match seen {
        None => head,
        Some(seen) => seen.saturating_add(1),
    };
    let watching = Watching {
        proof: request.proof().clone(),
        caller: request.caller().clone(),
        next,
        selection,
        head: api.registry.head(),
        stop: api.stop.clone(),
        begun: false,
        open: Open::new(api.metrics.clone(), place),
        api,
    };
    Ok(answer::ok_events(stream::unfold(
        watching,
        |mut watching| async {
            let part = watching.part().await?;
            Some((Ok::<_, Infallible>(part), watching))
        },
    )))
}

/// One open stream.
struct Watching {
    api: Api,
    /// What proves that it is still open for its client.
    proof: Proof,
    caller: Caller,
    /// The first event that the client has not got.
    next: u64,
    selection: Selection<String>,
    head: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    begun: bool,
    #[expect(dead_code, reason = "counts as long as it lives")]
    open: Open,
}

impl Watching {
    /// What is to be sent next; `None` at the end: the server stops, its store failed, or the client
    /// does not prove any more who it is.
    async fn part(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            // Something at once: the client knows that it is connected, and where it stands. It
            // should come back soon when it is not any more.
            return Some(format!("retry: 1000\n{}\n", self.place()).into());
        }
        loop {
            if *self.stop.borrow() || self.api.judge_again(&self.proof, &self.caller).is_err() {
                return None;
            }
            let head = *self.head.borrow_and_update();
            if self.next > head {
                // Ids of another store, or of one that was put back.
                let text = gap(head, self.next - 1);
                self.next = head;
                return Some(format!("{}{text}", self.place()).into());
            }
            if self.next < head {
                let page = self.api.registry.events(self.next, PAGE).await.ok()?;
                let text = self.render(&page);
                if !text.is_empty() {
                    return Some(text.into());
                }
                continue;
            }
            let mut stop = self.stop.clone();
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            tokio::select! {
                changed = self.head.changed() => changed.ok()?,
                () = stopped => return None,
                () = self.api.registry.failed() => return None,
                () = tokio::time::sleep(self.api.sign_of_life.min(SIGN_OF_LIFE)) => {
                    self.api.judge_again(&self.proof, &self.caller).ok()?;
                    return Some(format!(":\n{}\n", self.place()).into());
                }
            }
        }
    }

    /// Tells the client how far it has come, also where nothing was for it: without an event of its
    /// own it could not say so when it comes back. Nothing at the very beginning of a log.
    fn place(&self) -> String {
        let seen = self.next.checked_sub(1);
        seen.map_or_else(String::new, |seen| format!("id: {seen}\n"))
    }

    /// Takes a page of the log over; nothing to tell if it is empty.
    fn render(&mut self, page: &Page) -> String {
        let mut text = String::new();
        for event in &page.events {
            self.miss(event.sequence, &mut text);
            self.next = event.sequence + 1;
            let notice = event.notice();
            let asked = notice.filter(|notice| self.selection.concerns(notice));
            let Some(notice) = asked else { continue };
            let link = self.api.links.events();
            let notification =
                ServiceAvailabilityNotification::new(&[notice], link, &self.api.links);
            // JSON has no line breaks. Writing to a string cannot fail.
            let _ = write!(
                text,
                "id: {}\nevent: SerAvailabilityNotification\ndata: {}\n\n",
                event.sequence,
                String::from_utf8_lossy(&answer::json(&notification))
            );
        }
        self.miss(page.next, &mut text);
        self.next = page.next;
        text
    }

    /// Says that events before `sequence` are not kept any more, if there were any: what they did can
    /// be read from the list of services.
    fn miss(&self, sequence: u64, text: &mut String) {
        if self.next < sequence {
            let last = sequence - 1;
            let _ = write!(text, "id: {last}\n{}", gap(self.next, last));
        }
    }
}

fn gap(from: u64, to: u64) -> String {
    format!("event: gap\ndata: {{\"from\":{from},\"to\":{to}}}\n\n")
}

/// Counts open streams.
struct Open {
    metrics: Arc<Metrics>,
    #[expect(dead_code, reason = "held as long as it lives")]
    place: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: Arc<Metrics>, place: OwnedSemaphorePermit) -> Self {
        metrics.event_streams.inc();
        Self { metrics, place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.event_streams.dec();
    }
}
