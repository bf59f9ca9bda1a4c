//! Brings one service and the platform together: whatever was before, afterwards there is exactly
//! one registration, as configured, and its id is in the state file.
//!
//! It can be repeated at any time, and does the same work whyever it is called: at the start, after
//! a 404, after a reload, when a probe changes its mind. Before a registration leaves, the platform
//! is asked for one of that name, and the state file says that there may soon be one of unknown id.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value};

use super::client::{Answer, Client, Lost};
use super::info::{self, Info};
use super::state::{Memory, StateFile};

/// What is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) registration: Map<String, Value>,
    /// ACTIVE, else INACTIVE.
    pub(super) active: bool,
    /// ACTIVE also where somebody else has set it INACTIVE.
    pub(super) insist: bool,
    /// The server has been heard since the last registration whose answer was lost: if that has done
    /// anything, it shows by now.
    pub(super) doubt_ends: bool,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settled {
    pub(super) info: Info,
    /// It is not as wanted: INACTIVE, and not by us.
    pub(super) conflict: bool,
    /// It has just been registered: the platform has heard of it.
    pub(super) fresh: bool,
    /// There may be another one, of a registration whose answer was lost.
    pub(super) in_doubt: bool,
    /// Registrations of the same name that were removed.
    pub(super) surplus: usize,
}

/// Why it could not be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The server was not reached, or is not well.
    #[error("{0}")]
    Lost(String),
    /// It was reached, and could not do this.
    #[error("{0}")]
    Failed(String),
    /// It asks to be left alone for so long.
    #[error("{reason}; it asks for a pause of {} s", .pause.as_secs())]
    Busy { reason: String, pause: Duration },
    /// It does not want this.
    #[error("{0}")]
    Refused(String),
}

impl From<Lost> for Trouble {
    fn from(Lost(reason): Lost) -> Self {
        Self::Lost(reason)
    }
}

/// What an answer that is none of those expected says.
pub(super) fn trouble(answer: &Answer) -> Trouble {
    let reason = answer.refusal();
    match (answer.status, answer.retry_after) {
        (429 | 503, Some(pause)) => Trouble::Busy { reason, pause },
        (429 | 503, None) => Trouble::Lost(reason),
        (500.., _) => Trouble::Failed(reason),
        _ => Trouble::Refused(reason),
    }
}

/// See the module.
///
/// # Errors
/// [`Trouble`]; what was reached stands in the state file.
pub(super) async fn settle(
    client: &Client,
    state: &Arc<StateFile>,
    wanted: Wanted,
) -> Result<Settled, Trouble> {
    let mut memory = state.get(&wanted.name);
    let mut found = match &memory.id {
        Some(id) => by_id(client, id).await?,
        None => None,
    };
    let mut surplus = 0;
    if found.is_none() || memory.in_doubt {
        let own = of_name(client, &wanted.name).await?;
        found = found.or_else(|| info::choose(&own).cloned());
        if let Some(kept) = &found {
            let others = own.iter().filter(|info| info.id != kept.id);
            if memory.in_doubt {
                // Names are not unique: what looks otherwise was not sent by us.
                let looks = shown_of(client, &wanted);
                for other in others.filter(|other| other.shows(&looks)) {
                    remove(client, &other.id).await?;
                    surplus += 1;
                }
                memory.in_doubt = !wanted.doubt_ends;
            } else if others.count() > 0 {
                log::warn!(
                    "service {:?} is registered more than once, not by this agent; it takes care of {}",
                    wanted.name,
                    kept.id
                );
            }
        }
    }
    let mut settled = match found {
        Some(info) => adopt(client, state, &wanted, &mut memory, info).await?,
        None => register(client, state, &wanted, &mut memory).await?,
    };
    // The interval and the link are both there or both absent; where one is, the other was told.
    // Source: GS MEC 011 V2.2.1, 8.1.2.2.
    let same = memory.id.as_ref() == Some(&settled.info.id);
    if settled.info.beat.is_none() && settled.info.interval_s.is_some() {
        let known = memory.beat.take().filter(|_| same);
        settled.info.beat = known.or_else(|| client.untold_link(&settled.info.id));
    }
    memory.beat = settled.info.beat.clone();
    memory.id = Some(settled.info.id.clone());
    memory.registration = info::fingerprint(&wanted.registration);
    let in_doubt = memory.in_doubt;
    remember(state, &wanted.name, memory).await;
    Ok(Settled {
        in_doubt,
        surplus,
        ..settled
    })
}

/// Removes a service, and what a lost answer may have left behind.
///
/// # Errors
/// [`Trouble`].
pub(super) async fn depart(
    client: &Client,
    state: &Arc<StateFile>,
    name: &str,
) -> Result<(), Trouble> {
    let memory = state.get(name);
    if let Some(id) = &memory.id {
        remove(client, id).await?;
    }
    if memory.in_doubt {
        for info in of_name(client, name).await? {
            remove(client, &info.id).await?;
        }
    }
    let (state, name) = (state.clone(), name.to_owned());
    let forgotten = tokio::task::spawn_blocking(move || state.forget(&name)).await;
    if let Ok(Err(error)) = forgotten {
        log::error!("{error}");
    }
    Ok(())
}

/// Takes over what is registered already; changes it where it is not as wanted.
async fn adopt(
    client: &Client,
    state: &Arc<StateFile>,
    wanted: &Wanted,
    memory: &mut Memory,
    info: Info,
) -> Result<Settled, Trouble> {
    let ours = memory.inactive || wanted.insist;
    let conflict = wanted.active && info.inactive && !ours;
    let active = match (wanted.active, info.inactive) {
        (true, inactive) => !inactive || ours,
        (false, _) => false,
    };
    // Somebody else may have done it before us: then it is theirs to undo.
    if !active && !info.inactive {
        memory.inactive = true;
        remember(state, &wanted.name, memory.clone()).await;
    } else if active {
        memory.inactive = false;
    }
    let same = memory.registration == info::fingerprint(&wanted.registration)
        && info.shows(&shown_of(client, wanted))
        && active != info.inactive;
    let settled = |info| Settled {
        info,
        conflict,
        fresh: false,
        in_doubt: false,
        surplus: 0,
    };
    if same {
        return Ok(settled(info));
    }
    let mut body = wanted.registration.clone();
    body.insert("state".to_owned(), state_word(active).into());
    // Source: GS MEC 011 V2.2.1, 8.1.2.2: a transportId stands in a POST only.
    if let Some(shown) = info.all.get("transportInfo")
        && body.remove("transportId").is_some()
    {
        body.insert("transportInfo".to_owned(), shown.clone());
    }
    let url = client.service(&info.id);
    let answer = client
        .send(Method::PUT, &url, Some(&Value::Object(body)))
        .await?;
    match answer.status {
        200..300 => {
            let shown = answer.json().and_then(Info::read);
            let shown = shown.filter(|shown| shown.id == info.id);
            Ok(settled(shown.unwrap_or(Info {
                inactive: !active,
                ..info
            })))
        }
        404 => Err(Trouble::Lost(format!(
            "service {} was removed while it was updated",
            info.id
        ))),
        _ => Err(trouble(&answer)),
    }
}

async fn register(
    client: &Client,
    state: &Arc<StateFile>,
    wanted: &Wanted,
    memory: &mut Memory,
) -> Result<Settled, Trouble> {
    let doubted = memory.in_doubt;
    *memory = Memory {
        in_doubt: true,
        inactive: !wanted.active,
        ..Memory::default()
    };
    remember(state, &wanted.name, memory.clone()).await;
    let mut body = wanted.registration.clone();
    body.insert("state".to_owned(), state_word(wanted.active).into());
    let answer = client
        .send(Method::POST, &client.services(), Some(&Value::Object(body)))
        .await?;
    if answer.is_success() {
        let info = match answer.json().and_then(Info::read) {
            Some(info) => Some(info),
            // An answer without a representation may still say where it is.
            None => {
                let place = answer.location.as_deref();
                let id = place.and_then(|place| place.rsplit('/').next());
                match id.filter(|id| !id.is_empty()) {
                    Some(id) => by_id(client, id).await?,
                    None => None,
                }
            }
        };
        let info = info.ok_or_else(|| {
            Trouble::Lost("the answer to the registration names no service".to_owned())
        })?;
        // One whose answer was lost earlier may still come to light.
        memory.in_doubt = doubted;
        return Ok(Settled {
            info,
            conflict: false,
            fresh: true,
            in_doubt: doubted,
            surplus: 0,
        });
    }
    if (400..500).contains(&answer.status) {
        memory.in_doubt = doubted;
        remember(state, &wanted.name, memory.clone()).await;
    }
    Err(trouble(&answer))
}

async fn by_id(client: &Client, id: &str) -> Result<Option<Info>, Trouble> {
    let answer = client.send(Method::GET, &client.service(id), None).await?;
    match answer.status {
        200 => match answer.json().and_then(Info::read) {
            Some(info) if info.id == id => Ok(Some(info)),
            Some(_) | None => Err(Trouble::Lost(format!(
                "what the server answered about service {id} cannot be understood"
            ))),
        },
        // EdgeGallery answers 400 for an id that it does not know.
        400 | 404 | 410 => Ok(None),
        _ => Err(trouble(&answer)),
    }
}

/// The application's own services of a name.
async fn of_name(client: &Client, name: &str) -> Result<Vec<Info>, Trouble> {
    let mut answer = client
        .send(Method::GET, &client.services_named(name), None)
        .await?;
    if answer.status == 400 {
        // A server that does not know the query.
        answer = client.send(Method::GET, &client.services(), None).await?;
    }
    match answer.status {
        200 => match answer.json() {
            Some(Value::Array(services)) => {
                let services = services.into_iter().filter_map(Info::read);
                // Not every server filters as it is asked to, neither by name nor by application.
                let own =
                    services.filter(|info| info.name == name && info.may_be_of(client.app_name()));
                Ok(own.collect())
            }
            Some(_) | None => Err(Trouble::Lost(
                "the list of services that the server answered cannot be understood".to_owned(),
            )),
        },
        // The application is not known yet.
        404 => Ok(Vec::new()),
        _ => Err(trouble(&answer)),
    }
}

async fn remove(client: &Client, id: &str) -> Result<(), Trouble> {
    let answer = client
        .send(Method::DELETE, &client.service(id), None)
        .await?;
    match answer.status {
        200..300 | 404 | 410 => Ok(()),
        _ => Err(trouble(&answer)),
    }
}

/// Without a state file the agent is less sure of itself, and that is better than no beats.
async fn remember(state: &Arc<StateFile>, name: &str, memory: Memory) {
    let (state, name) = (state.clone(), name.to_owned());
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || state.put(&name, memory)).await {
        log::error!("{error}");
    }
}

/// What the platform shows of a registration of ours.
fn shown_of(client: &Client, wanted: &Wanted) -> Map<String, Value> {
    let registration = wanted.registration.clone();
    match client.is_edgegallerys() {
        true => info::without_endpoint(registration),
        false => registration,
    }
}

fn state_word(active: bool) -> &'static str {
    if active { "ACTIVE" } else { "INACTIVE" }
}
