//! What can be typed behind `mepulse agent`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::agent::Config;
use crate::agent::config::{self, ConfigError, OnConflict, OnStop};
use crate::agent::edgegallery;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct AgentArgs {
    /// The agent's configuration file; scripts/agent.toml documents every key. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", required_unless_present = "edgegallery")]
    pub(super) config: Option<PathBuf>,
    /// Stand in for EdgeGallery's agent: its app_instance_info.yaml is in this directory, or in conf/
    /// below it; APPINSTID, MEP_IP, MEP_APIGW_PORT, EG_PROTOCOL, CA_CERT_DOMAIN_NAME, AK and SK are in
    /// the environment. TLS is verified: ca.crt in the directory, or MEPULSE_CA_FILE, names more
    /// authorities than the system's.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(super) edgegallery: Option<PathBuf>,
    /// With --edgegallery: where to serve applications, and /status [default: 127.0.0.1:8080].
    /// Whoever reaches it gets the token.
    #[arg(long, value_name = "ADDR", requires = "edgegallery")]
    pub(super) status_listen: Option<String>,
    #[command(subcommand)]
    pub(super) command: Option<AgentCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Start a command and beat while it lives: registers, forwards TERM, INT, HUP, USR1 and USR2,
    /// deregisters when it ends, and exits as it did (128 + n after signal n).
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// A configuration file instead of the flags below.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "app", "service"])]
    pub(super) config: Option<PathBuf>,
    /// The platform, e.g. http://127.0.0.1:8088.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    server: Option<String>,
    /// The application's id (appInstanceId).
    #[arg(
        long,
        value_name = "APP_INSTANCE_ID",
        required_unless_present = "config"
    )]
    app: Option<String>,
    /// The service's name (serName).
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    service: Option<String>,
    /// Seconds offered as livenessInterval; the platform may choose others.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u32,
    /// Where the service is reached; may be repeated. Without it the registration does not say.
    #[arg(long, value_name = "URI")]
    endpoint: Vec<String>,
    /// One of the platform's transports instead of --endpoint.
    #[arg(long, value_name = "ID", conflicts_with = "endpoint")]
    transport_id: Option<String>,
    /// The service's version.
    #[arg(long, value_name = "VERSION", default_value = "1.0")]
    service_version: String,
    /// The root of service management behind the URL.
    #[arg(long, value_name = "PATH", default_value = crate::wire::links::ROOT)]
    api_root: String,
    /// A bearer token, alone in a file.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The secret of an OAuth 2.0 client, alone in a file: tokens are fetched at /oauth2/token.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    client_secret_file: Option<PathBuf>,
    /// The client's id [default: the application's].
    #[arg(long, value_name = "ID", requires = "client_secret_file")]
    client_id: Option<String>,
    /// Certificate authorities besides the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate to show.
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "client_cert_file")]
    client_key_file: Option<PathBuf>,
    /// Where the service's id is remembered [default: nowhere; it is found again by its name].
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// What becomes of the service when the command has ended.
    #[arg(long, value_enum, default_value = "deregister")]
    on_stop: OnStop,
    /// What to do when somebody else has set the service INACTIVE.
    #[arg(long, value_enum, default_value = "wait")]
    on_conflict: OnConflict,
    /// Where to serve /healthz, /status and /metrics: host:port or unix:/path.
    #[arg(long, value_name = "ADDR", default_value = "")]
    status_listen: String,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

impl AgentArgs {
    /// What is logged unless RUST_LOG says otherwise: a command's own output should stand out.
    pub(in crate::cli) fn default_filter(&self) -> &'static str {
        match self.command {
            None => "info",
            Some(AgentCommand::Run(_)) => "warn",
        }
    }

    /// Reads the configuration, at the start and again at SIGHUP.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        match (&self.edgegallery, &self.config) {
            (Some(directory), _) => {
                let listen = self.status_listen.as_deref();
                edgegallery::load(directory, |name| std::env::var(name).ok(), listen)
            }
            (None, Some(path)) => Config::load(path),
            (None, None) => Err(ConfigError::Wrong(
                "there is none; name one with --config".to_owned(),
            )),
        }
    }
}

impl RunArgs {
    /// The configuration that the flags stand for.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        if let Some(path) = &self.config {
            return Config::load(path);
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        let endpoint = match self.endpoint.as_slice() {
            [] => json!({"alternative": {}}),
            uris => json!({"uris": uris}),
        };
        let transport = json!({
            "id": "endpoint", "name": "endpoint", "type": "REST_HTTP", "protocol": "HTTP",
            "version": "1.1", "endpoint": endpoint, "security": {}
        });
        let transport = match self.transport_id {
            None => toml::Table::try_from(transport).ok(),
            Some(_) => None,
        };
        let config = Config {
            server: config::Server {
                ca_file: path(&self.ca_file),
                client_cert_file: path(&self.client_cert_file),
                client_key_file: path(&self.client_key_file),
                token_file: path(&self.token_file),
                oauth2: config::OAuth2 {
                    client_id: text(&self.client_id),
                    client_secret_file: path(&self.client_secret_file),
                    ..config::OAuth2::default()
                },
                api_root: self.api_root.clone(),
                ..config::Server::at(&text(&self.server))
            },
            agent: config::Agent {
                state_file: path(&self.state_file),
                on_stop: self.on_stop,
                on_conflict: self.on_conflict,
                ..config::Agent::of(&text(&self.app))
            },
            status: config::Status {
                listen: self.status_listen.clone(),
                hand_out_tokens: false,
            },
            services: vec![config::Service {
                interval_s: self.interval,
                version: self.service_version.clone(),
                transport,
                transport_id: self.transport_id.clone(),
                ..config::Service::named(&text(&self.service))
            }],
            may_be_idle: false,
        };
        config.check()?;
        Ok(config)
    }
}
