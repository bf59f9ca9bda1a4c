//! EdgeGallery's own agent is configured by a YAML file and environment variables; ours takes both as
//! they are, so that a deployment switches by changing the image.
//!
//! What MEC 011 demands and EdgeGallery does not is filled in; what its agent would reject only
//! because it does not know it, is named and left out.

mod file;

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::config::{self, AccessKey, Config, ConfigError, OnStop, Secret};
use crate::auth::sdk_hmac::ACCESS_KEY_BYTES_MAX;
use crate::domain::AppInstanceId;

/// Where service management is. Source: EdgeGallery's agent.
pub(super) const API_ROOT: &str = "/mep/mec_service_mgmt/v1";

/// Where the file is, in the directory that was named.
const PLACES: [&str; 2] = ["conf/app_instance_info.yaml", "app_instance_info.yaml"];

/// Without TLS EdgeGallery's agent calls this port, whatever the environment says.
const PLAIN_PORT: u16 = 8000;

/// Where EdgeGallery's agent serves its applications; only those of the same pod can be meant.
const LISTEN: &str = "127.0.0.1:8080";

/// Authorities in the directory that was named.
const CA_FILE: &str = "ca.crt";

/// The configuration that the file and the environment stand for. `listen` overrides where the agent
/// serves its applications.
///
/// # Errors
/// [`ConfigError`]: the file, or all variables that are wrong.
pub fn load(
    directory: &Path,
    variable: impl Fn(&str) -> Option<String>,
    listen: Option<&str>,
) -> Result<Config, ConfigError> {
    let path = place(directory)?;
    let file = file::read(&path)?;
    for key in &file.unknown {
        log::warn!("{}: {key} is not known, and ignored", path.display());
    }
    if file.subscriptions > 0 {
        log::warn!(
            "{}: {} serAvailabilityNotificationSubscriptions are ignored, as EdgeGallery's agent \
             does it; applications subscribe themselves",
            path.display(),
            file.subscriptions
        );
    }
    let root = if directory.is_dir() {
        directory
    } else {
        directory.parent().unwrap_or(Path::new(""))
    };
    let on_stop = on_stop(&variable)?;
    let environment = environment(variable, root)?;
    let config = Config {
        server: environment.server,
        agent: config::Agent {
            // Services are found again by their names.
            state_file: PathBuf::new(),
            on_stop,
            ..config::Agent::of(&environment.app)
        },
        status: config::Status {
            listen: listen.unwrap_or(LISTEN).to_owned(),
            hand_out_tokens: true,
        },
        services: file.services,
        may_be_idle: true,
    };
    config.check()?;
    Ok(config)
}

/// Whoever updates without a gap starts the new agent before the old one is stopped: the new one goes
/// on with the services of the old one, which must then not remove them.
fn on_stop(variable: impl Fn(&str) -> Option<String>) -> Result<OnStop, ConfigError> {
    let value = variable("MEPULSE_ON_STOP").unwrap_or_default();
    match value.trim() {
        "" | "deregister" => Ok(OnStop::Deregister),
        "leave" => Ok(OnStop::Leave),
        other => Err(ConfigError::Wrong(format!(
            "MEPULSE_ON_STOP ({other:?}) must be leave or deregister"
        ))),
    }
}

fn place(directory: &Path) -> Result<PathBuf, ConfigError> {
    if directory.is_file() {
        return Ok(directory.to_owned());
    }
    let mut places = PLACES.iter().map(|name| directory.join(name));
    places.find(|path| path.is_file()).ok_or_else(|| {
        ConfigError::Wrong(format!(
            "--edgegallery {}: there is neither {} nor {} in it",
            directory.display(),
            PLACES[0],
            PLACES[1]
        ))
    })
}

/// What the variables say.
#[derive(Debug)]
struct Environment {
    server: config::Server,
    app: String,
}

/// Reads all variables before it complains.
fn environment(
    variable: impl Fn(&str) -> Option<String>,
    root: &Path,
) -> Result<Environment, ConfigError> {
    let get = |name: &str| {
        let value = variable(name).map(|value| value.trim().to_owned());
        value.filter(|value| !value.is_empty())
    };
    let mut wrong = Vec::new();
    let app = get("APPINSTID").unwrap_or_default();
    if app.is_empty() {
        wrong.push("APPINSTID is missing; it is the application's id".to_owned());
    } else if let Err(error) = AppInstanceId::parse(&app) {
        wrong.push(format!("APPINSTID ({app:?}): {error}"));
    }
    let host = match get("MEP_IP") {
        None => {
            wrong.push("MEP_IP is missing; it is the platform's address or name".to_owned());
            String::new()
        }
        Some(ip) if ip.parse::<Ipv6Addr>().is_ok() => format!("[{ip}]"),
        Some(name) => {
            if url::Host::parse(&name).is_err() {
                wrong.push(format!("MEP_IP ({name:?}) is no address and no name"));
            }
            name
        }
    };
    let plain = match get("EG_PROTOCOL")
        .map(|it| it.to_ascii_lowercase())
        .as_deref()
    {
        Some("http") => true,
        Some("https") | None => false,
        Some(other) => {
            wrong.push(format!("EG_PROTOCOL ({other:?}) must be http or https"));
            false
        }
    };
    let port = match (plain, get("MEP_APIGW_PORT")) {
        (true, _) => PLAIN_PORT,
        (false, None) => {
            wrong.push("MEP_APIGW_PORT is missing; it is the platform's port".to_owned());
            0
        }
        (false, Some(port)) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .unwrap_or_else(|| {
                wrong.push(format!("MEP_APIGW_PORT ({port:?}) must be 1 to 65535"));
                0
            }),
    };
    let tls_name = get("CA_CERT_DOMAIN_NAME").unwrap_or_default();
    if !plain
        && !tls_name.is_empty()
        && rustls::pki_types::ServerName::try_from(tls_name.as_str()).is_err()
    {
        wrong.push(format!("CA_CERT_DOMAIN_NAME ({tls_name:?}) is no name"));
    }
    let access_key = access_key(get("AK"), get("SK"), &mut wrong);
    let ca_file = ca_file(get("MEPULSE_CA_FILE"), root, &mut wrong);
    if !wrong.is_empty() {
        return Err(ConfigError::Wrong(format!(
            "the environment is not what --edgegallery needs:\n- {}",
            wrong.join("\n- ")
        )));
    }
    let scheme = if plain { "http" } else { "https" };
    if plain {
        log::warn!(
            "EG_PROTOCOL is http: tokens and heartbeats go to {host}:{port} without TLS, where others \
             can read along"
        );
    } else if ca_file.as_os_str().is_empty() {
        log::warn!(
            "only the system's certificate authorities are trusted; if the platform's certificate is \
             of another one, put that into {}, or name it with MEPULSE_CA_FILE",
            root.join(CA_FILE).display()
        );
    }
    Ok(Environment {
        server: config::Server {
            ca_file,
            access_key,
            tls_name: if plain { String::new() } else { tls_name },
            allow_plain: plain,
            api_root: API_ROOT.to_owned(),
            ..config::Server::at(&format!("{scheme}://{host}:{port}"))
        },
        app,
    })
}

fn access_key(key: Option<String>, secret: Option<String>, wrong: &mut Vec<String>) -> AccessKey {
    let none = AccessKey::default();
    match (key, secret) {
        (None, None) => {
            log::warn!("neither AK nor SK is there: requests carry no token");
            none
        }
        (Some(_), None) => {
            wrong.push("SK is missing; AK needs its secret key".to_owned());
            none
        }
        (None, Some(_)) => {
            wrong.push("AK is missing; SK belongs to an access key".to_owned());
            none
        }
        (Some(key), Some(secret)) => {
            if !config::is_access_key(&key) {
                wrong.push(format!(
                    "AK must be 1 to {ACCESS_KEY_BYTES_MAX} printable characters, without a comma"
                ));
            }
            AccessKey {
                access_key: key,
                secret_key: Some(Secret::new(secret)),
                ..none
            }
        }
    }
}

fn ca_file(named: Option<String>, root: &Path, wrong: &mut Vec<String>) -> PathBuf {
    match named.map(PathBuf::from) {
        Some(path) => {
            if let Err(error) = std::fs::File::open(&path) {
                wrong.push(format!(
                    "MEPULSE_CA_FILE {} cannot be read: {error}",
                    path.display()
                ));
            }
            path
        }
        None => Some(root.join(CA_FILE))
            .filter(|path| path.is_file())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
