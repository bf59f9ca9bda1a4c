//! The layers, merged key by key, so that a refusal names the key and where it was set.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError};

/// The layers merged so far. Keys and types are those of the defaults.
pub(super) struct Layers {
    defaults: Table,
    merged: Table,
}

impl Layers {
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        let defaults = Table::try_from(Config::default())
            .map_err(|error| ConfigError::Conflict(error.to_string()))?;
        Ok(Self {
            merged: defaults.clone(),
            defaults,
        })
    }

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let table: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let layer = path.display().to_string();
        for (section, content) in table {
            let Value::Table(content) = content else {
                return Err(self.unknown(&section, layer));
            };
            if content.is_empty() && !self.defaults.contains_key(&section) {
                return Err(self.unknown(&section, layer));
            }
            for (key, value) in content {
                self.put(&format!("{section}.{key}"), value, &layer)?;
            }
        }
        Ok(())
    }

    /// Only names with a double underscore are ours: container platforms inject others, such as
    /// `MEPULSE_SERVICE_HOST`.
    pub(super) fn add_env(&mut self, env: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, text) in env {
            let Some((section, key)) = name
                .strip_prefix("MEPULSE_")
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let key = format!("{section}.{key}").to_lowercase();
            self.put_text(&key, text, &format!("the environment ({name})"))?;
        }
        Ok(())
    }

    pub(super) fn add_flag(&mut self, setting: &str) -> Result<(), ConfigError> {
        let (key, text) = setting
            .split_once('=')
            .filter(|(key, _)| key.contains('.'))
            .ok_or_else(|| ConfigError::SetSyntax(setting.to_owned()))?;
        self.put_text(key.trim(), text, "the command line")
    }

    /// A value given as text takes the type of the default.
    fn put_text(&mut self, key: &str, text: &str, layer: &str) -> Result<(), ConfigError> {
        let wrong = |expected: &str| ConfigError::Value {
            key: key.to_owned(),
            layer: layer.to_owned(),
            reason: format!("{text:?} is not {expected}"),
        };
        let default =
            lookup(&self.defaults, key).ok_or_else(|| self.unknown(key, layer.to_owned()))?;
        let value = match default {
            Value::Integer(_) => {
                Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?)
            }
            Value::Boolean(_) => {
                Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?)
            }
            // As in the file, or shorter: words with commas between them.
            Value::Array(_) if text.trim_start().starts_with('[') => {
                let parsed = format!("value = {text}").parse::<Table>();
                let value = parsed.ok().and_then(|mut table| table.remove("value"));
                value.ok_or_else(|| wrong("a TOML array"))?
            }
            Value::Array(_) => {
                let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
                Value::Array(words.map(Value::from).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.put(key, value, layer)
    }

    fn put(&mut self, key: &str, value: Value, layer: &str) -> Result<(), ConfigError> {
        let unknown = || self.unknown(key, layer.to_owned());
        let (section, name) = key.split_once('.').ok_or_else(unknown)?;
        let default = lookup(&self.defaults, key).ok_or_else(unknown)?;
        if !default.same_type(&value) {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                layer: layer.to_owned(),
                reason: format!(
                    "expected {}, found {}",
                    default.type_str(),
                    value.type_str()
                ),
            });
        }
        // One key at a time is tried, so that the message can name it and its layer.
        let mut candidate = self.defaults.clone();
        insert(&mut candidate, section, name, value.clone());
        if let Err(error) = candidate.try_into::<Config>() {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                layer: layer.to_owned(),
                reason: error.message().to_owned(),
            });
        }
        insert(&mut self.merged, section, name, value);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Config, ConfigError> {
        let config: Config = self
            .merged
            .try_into()
            .map_err(|error| ConfigError::Conflict(error.message().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    fn unknown(&self, key: &str, layer: String) -> ConfigError {
        let nearest = keys(&self.defaults)
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(key, &known), known))
            .min();
        let hint = nearest.map_or(String::new(), |(_, known)| {
            format!("; did you mean `{known}`?")
        });
        ConfigError::UnknownKey {
            key: key.to_owned(),
            layer,
            hint,
        }
    }
}

fn insert(table: &mut Table, section: &str, name: &str, value: Value) {
    if let Some(Value::Table(section)) = table.get_mut(section) {
        section.insert(name.to_owned(), value);
    }
}

pub(super) fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    table.get(section)?.as_table()?.get(name)
}

pub(super) fn keys(table: &Table) -> Vec<String> {
    let sections = table
        .iter()
        .filter_map(|(section, content)| Some((section, content.as_table()?)));
    sections
        .flat_map(|(section, content)| content.keys().map(move |key| format!("{section}.{key}")))
        .collect()
}
