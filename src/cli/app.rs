//! `mepulse admin app` and `mepulse admin token`: the credentials in the data directory, whether the
//! server runs or not. The store is not opened.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Failure;
use super::admin::{print_json, print_text};
use super::data_dir::DataDir;
use super::human::table;
use super::source::tell_server;
use crate::auth::{AuthError, Credentials, Issuer, Listed, Subject};
use crate::clock::wall_now;
use crate::config::Config;
use crate::domain::AppInstanceId;

/// No token lives longer, in seconds: ten years.
const TTL_S_MAX: i64 = 10 * 365 * 24 * 3600;

/// A file with a secret key is not longer, in bytes.
const SECRET_KEY_FILE_MAX: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Give an application a secret for /oauth2/token, or an access key; they are printed once.
    Add(AddArgs),
    /// Give an application another secret; tokens for the old one end at once, tokens of its access
    /// keys stay good.
    Rotate {
        /// The application (appInstanceId).
        app: String,
    },
    /// Take an application's credentials away; its tokens end, and the server removes its services.
    Remove {
        /// The application (appInstanceId).
        app: String,
        /// Take this access key alone away; its tokens end, the application and its services stay.
        #[arg(long, value_name = "AK")]
        access_key: Option<String>,
    },
    /// List the applications that have credentials.
    List,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The application (appInstanceId), which is its client id too.
    app: String,
    /// Make no secret.
    #[arg(long)]
    no_secret: bool,
    /// Make an access key and its secret key (EdgeGallery's AK and SK).
    #[arg(long, conflicts_with_all = ["access_key", "secret_key_file"])]
    new_access_key: bool,
    /// Take this access key over.
    #[arg(long, value_name = "AK", requires = "secret_key_file")]
    access_key: Option<String>,
    /// Where its secret key is; -: standard input.
    #[arg(long, value_name = "FILE", requires = "access_key")]
    secret_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).args(["operator", "app"])))]
pub(super) struct TokenArgs {
    /// For an operator, who may act for every application; the name is for logs.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "operator")]
    operator: Option<String>,
    /// For an application that has a credential (appInstanceId).
    #[arg(long)]
    app: Option<String>,
    /// Good for so many seconds [default: auth.token_ttl_s].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=TTL_S_MAX))]
    ttl_s: Option<i64>,
}

/// What was handed out. It is printed, and then nobody knows it but who reads it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Handed<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedJson<'a> {
    app_instance_id: &'a str,
    secret: bool,
    access_keys: &'a [String],
    created: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenJson<'a> {
    token: &'a str,
    expires_in_s: u64,
}

pub(super) fn run(command: &AppCommand, config: &Config, json: bool) -> Result<(), Failure> {
    let credentials = Credentials::new(&config.store.data_dir, &config.edgegallery);
    match command {
        AppCommand::Add(args) => add(args, &credentials, config, json),
        AppCommand::Rotate { app } => {
            let app = parse_app(app)?;
            let secret = credentials.rotate(&app, wall_now())?;
            hand_out(
                &Handed {
                    client_id: app.as_str(),
                    client_secret: Some(&secret),
                    ..Handed::default()
                },
                json,
            )?;
            tell_server(config)
        }
        AppCommand::Remove { app, access_key } => {
            let app = parse_app(app)?;
            match access_key {
                Some(access_key) => credentials.remove_access_key(&app, access_key)?,
                None => credentials.remove(&app)?,
            }
            tell_server(config)
        }
        AppCommand::List => list(&credentials.list()?, json),
    }
}

fn add(
    args: &AddArgs,
    credentials: &Credentials,
    config: &Config,
    json: bool,
) -> Result<(), Failure> {
    let app = parse_app(&args.app)?;
    // Before anything is changed: it may not be readable.
    let given = match (&args.access_key, &args.secret_key_file) {
        (Some(access_key), Some(file)) => Some((access_key, read_secret_key(file)?)),
        _ => None,
    };
    let data_dir = DataDir::new(config);
    let wants_access_key = given.is_some() || args.new_access_key;
    let secret = match credentials.add(&app, !args.no_secret, wall_now()) {
        Ok(secret) => secret,
        // It gets an access key, and keeps its secret.
        Err(AuthError::Exists(_)) if wants_access_key => None,
        Err(error) => return Err(error.into()),
    };
    data_dir.warn_if_new();
    let access_key = match &given {
        Some((access_key, secret_key)) => credentials
            .add_access_key(&app, access_key, secret_key)
            .map(|()| None),
        None if args.new_access_key => credentials.new_access_key(&app).map(Some),
        None => Ok(None),
    };
    // A secret that was made is shown whatever came of the access key: it is in force.
    let made = access_key.as_ref().ok().and_then(Option::as_ref);
    let taken_over = given.as_ref().filter(|_| access_key.is_ok());
    hand_out(
        &Handed {
            client_id: app.as_str(),
            client_secret: secret.as_ref().map(|secret| secret.as_str()),
            access_key: made
                .map(|made| made.access_key.as_str())
                .or(taken_over.map(|(access_key, _)| access_key.as_str())),
            secret_key: made.map(|made| made.secret_key.as_str()),
        },
        json,
    )?;
    let told = tell_server(config);
    access_key?;
    told
}

/// Prints what was made, once.
fn hand_out(handed: &Handed<'_>, json: bool) -> Result<(), Failure> {
    if handed.client_secret.is_some() || handed.secret_key.is_some() {
        eprintln!("mepulse: keep this; it is not shown again");
    }
    if json {
        return print_json(handed);
    }
    let facts = [
        ("client id", Some(handed.client_id)),
        ("client secret", handed.client_secret),
        ("access key", handed.access_key),
        ("secret key", handed.secret_key),
    ];
    let rows = facts
        .into_iter()
        .filter_map(|(name, value)| Some([name.to_owned(), value?.to_owned()]));
    print_text(&table(None, rows.collect()))
}

fn list(listed: &[Listed], json: bool) -> Result<(), Failure> {
    if json {
        let listed: Vec<_> = listed
            .iter()
            .map(|one| ListedJson {
                app_instance_id: one.app.as_str(),
                secret: one.has_secret,
                access_keys: &one.access_keys,
                created: &one.created,
            })
            .collect();
        return print_json(&listed);
    }
    let header = ["APPLICATION", "SECRET", "ACCESS KEYS", "CREATED"];
    let row = |one: &Listed| {
        let access_keys = match one.access_keys.as_slice() {
            [] => "-".to_owned(),
            keys => keys.join(", "),
        };
        let secret = if one.has_secret { "yes" } else { "no" };
        [
            one.app.to_string(),
            secret.to_owned(),
            access_keys,
            one.created.clone(),
        ]
    };
    print_text(&table(Some(header), listed.iter().map(row).collect()))
}

pub(super) fn token(args: &TokenArgs, config: &Config, json: bool) -> Result<(), Failure> {
    let credentials = Credentials::new(&config.store.data_dir, &config.edgegallery);
    let subject = match (&args.operator, &args.app) {
        (Some(name), _) => Subject::Operator { name: name.clone() },
        (None, Some(app)) => {
            let app = parse_app(app)?;
            Subject::Application {
                credential: credentials.credential_of(&app)?,
                app,
            }
        }
        (None, None) => return Err(Failure::failed("a token for whom? --operator or --app APP")),
    };
    let ttl_s = args.ttl_s.and_then(|secs| u64::try_from(secs).ok());
    let ttl_s = ttl_s.unwrap_or(config.auth.token_ttl_s);
    let is_new = !Issuer::file(credentials.directory()).exists();
    let data_dir = DataDir::new(config);
    let issuer = Issuer::open(credentials.directory())?;
    data_dir.warn_if_new();
    let issued = issuer.issue_offline(&subject, ttl_s, wall_now())?;
    if json {
        print_json(&TokenJson {
            token: &issued.token,
            expires_in_s: issued.expires_in_s,
        })?;
    } else {
        print_text(&format!("{}\n", issued.token))?;
    }
    // Else it knows the key already.
    if is_new { tell_server(config) } else { Ok(()) }
}

fn parse_app(text: &str) -> Result<AppInstanceId, Failure> {
    AppInstanceId::parse(text).map_err(|error| Failure {
        code: 2,
        message: format!("{text:?}: {error}"),
    })
}

/// Without the end of its line, which editors and `echo` put there.
fn read_secret_key(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "--secret-key-file {} cannot be read: {reason}",
            file.display()
        ))
    };
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let read = if file == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin.take(SECRET_KEY_FILE_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(SECRET_KEY_FILE_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| failed(&error))?;
    let kept = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(kept);
    if text.is_empty() {
        return Err(failed(&"it is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::super::{AdminCommand, Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<AdminCommand, clap::Error> {
        let parsed = Cli::try_parse_from(["mepulse", "admin"].iter().chain(args))?;
        match parsed.command {
            Command::Admin(args) => Ok(args.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_goes_together_and_what_does_not() {
        for good in [
            &["app", "add", "a"][..],
            &["app", "add", "a", "--no-secret", "--new-access-key"],
            &[
                "app",
                "add",
                "a",
                "--access-key",
                "AK",
                "--secret-key-file",
                "-",
            ],
            &["app", "rotate", "a", "--json"],
            &["app", "remove", "a", "--access-key", "AK"],
            &["app", "list", "--data-dir", "x"],
            &["token", "--operator"],
            &["token", "--operator", "alice", "--ttl-s", "60"],
            &["token", "--app", "a"],
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            &["app"][..],
            &["app", "add"],
            &["app", "add", "a", "--access-key", "AK"],
            &["app", "add", "a", "--secret-key-file", "-"],
            &[
                "app",
                "add",
                "a",
                "--new-access-key",
                "--access-key",
                "AK",
                "--secret-key-file",
                "-",
            ],
            &["token"],
            &["token", "--operator", "a", "--app", "a"],
            &["token", "--operator", "--ttl-s", "0"],
            &["token", "--operator", "--ttl-s", "315360001"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let AdminCommand::Token(args) = parse(&["token", "--operator"]).unwrap() else {
            panic!("no token");
        };
        assert_eq!(args.operator.as_deref(), Some("operator"));
    }

    #[test]
    fn a_secret_key_ends_before_its_line_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("key", Some("key")),
            ("key\n", Some("key")),
            ("key\r\n", Some("key")),
            (" key ", Some(" key ")),
            ("", None),
            ("\n", None),
        ] {
            fs::write(file.path(), text).unwrap();
            let read = read_secret_key(file.path()).ok();
            assert_eq!(read.as_ref().map(|key| key.as_str()), expected, "{text:?}");
        }
        fs::write(file.path(), [0xff]).unwrap();
        assert!(read_secret_key(file.path()).is_err());
        let missing = read_secret_key(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.message.contains("/no/such/file"), "{missing:?}");
    }

    #[test]
    fn an_application_that_is_none_is_wrong_usage() {
        let refused = parse_app("a/b").unwrap_err();
        assert_eq!(refused.code, 2);
        assert!(
            refused.message.contains("appInstanceId must be"),
            "{refused:?}"
        );
    }
}
