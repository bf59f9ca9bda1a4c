//! The query of a list or a watch, read strictly: what is misspelt must not ask for everything.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.3.3.1.

use std::fmt;

use percent_encoding::percent_decode;
use serde_json::Value;

use super::dialect::Dialect;
use super::member::{Malformed, describe, empty, word_in};
use super::service::LOCALITIES;
use crate::domain::{Query, Selection, ServiceId};

const ID: &str = "ser_instance_id";
const NAME: &str = "ser_name";
const CATEGORY: &str = "ser_category_id";
const SCOPE: &str = "scope_of_locality";
const CONSUMED_LOCALLY: &str = "consumed_local_only";
const LOCAL: &str = "is_local";

const OF_SERVICES: [&str; 6] = [ID, NAME, CATEGORY, SCOPE, CONSUMED_LOCALLY, LOCAL];
const OF_A_WATCH: [&str; 4] = [ID, NAME, CATEGORY, LOCAL];

/// EdgeGallery's name of [`ID`].
const EDGEGALLERY_ID: &str = "instance_id";
/// Only EdgeGallery's clients ask for it.
const VERSION: &str = "version";

const BOOLS: [(&str, bool); 2] = [("true", true), ("false", false)];

/// Reads the query of a list of services, as it stands in the URI after the `?`.
///
/// # Errors
/// [`Malformed`], naming the parameter.
pub fn parse_services(raw: &str, dialect: Dialect) -> Result<Query, Malformed> {
    let mut parameters = if dialect.is_edgegallery() {
        let mut known = OF_SERVICES.to_vec();
        known.extend([EDGEGALLERY_ID, VERSION]);
        Parameters::parse(raw, &known)?
    } else {
        Parameters::parse(raw, &OF_SERVICES)?
    };
    parameters.rename(EDGEGALLERY_ID, ID);
    let query = Query {
        selection: parameters.selection()?,
        version: parameters.one(VERSION)?,
        scope_of_locality: parameters.word(SCOPE, &LOCALITIES)?,
        consumed_local_only: parameters.word(CONSUMED_LOCALLY, &BOOLS)?,
    };
    parameters.local()?;
    Ok(query)
}

/// Reads the query of a watch, as it stands in the URI after the `?`.
///
/// # Errors
/// [`Malformed`], naming the parameter.
pub fn parse_watch(raw: &str) -> Result<Selection<String>, Malformed> {
    let mut parameters = Parameters::parse(raw, &OF_A_WATCH)?;
    let selection = parameters.selection()?;
    parameters.local()?;
    Ok(selection)
}

/// Strict percent-decoding: every `%` starts two hex digits, and the result is UTF-8.
#[must_use]
pub fn decode(text: &[u8]) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(at + 1..at + 3)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        rest = &rest[at + 3..];
    }
    let text = percent_decode(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// Ids that can be ours in the form in which we write them, others as they came: they match
/// nothing.
pub(super) fn hyphenated(ids: Vec<String>) -> Vec<String> {
    let id = |id: String| ServiceId::parse(&id).map_or(id, |id| id.to_string());
    ids.into_iter().map(id).collect()
}

/// The one kind of selection that is there; each comes with its name.
pub(super) fn one_kind<C>(
    kinds: [(impl fmt::Display, Option<Selection<C>>); 3],
) -> Result<Selection<C>, Malformed> {
    let mut given = kinds
        .into_iter()
        .filter_map(|(name, kind)| Some((name, kind?)));
    match (given.next(), given.next()) {
        (None, _) => Ok(Selection::All),
        (Some((_, kind)), None) => Ok(kind),
        (Some((first, _)), Some((second, _))) => Err(Malformed::new(format!(
            "{first} and {second} exclude each other"
        ))),
    }
}

/// The parameters of a query that are not yet taken.
struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    fn parse(raw: &str, known: &[&'static str]) -> Result<Self, Malformed> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_form("the name of a query parameter", name)?;
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(Malformed::new(format!(
                    "query parameter {} is not supported here; {} are",
                    describe(&name.into()),
                    known.join(", ")
                )));
            };
            match decode_form(name, value)? {
                value if value.is_empty() => Err(empty(name)),
                value => Ok((*name, value)),
            }
        };
        pairs.map(parameter).collect::<Result<_, _>>().map(Self)
    }

    /// Takes one name for another.
    fn rename(&mut self, from: &str, to: &'static str) {
        for (name, _) in &mut self.0 {
            if *name == from {
                *name = to;
            }
        }
    }

    /// Every value of a parameter; `None` when there is none.
    fn all(&mut self, name: &str) -> Option<Vec<String>> {
        let taken = self.0.extract_if(.., |(given, _)| *given == name);
        let values: Vec<_> = taken.map(|(_, value)| value).collect();
        (!values.is_empty()).then_some(values)
    }

    /// The value of a parameter that can be given once.
    fn one(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        let mut values = self.all(name).unwrap_or_default();
        match values.len() {
            0 | 1 => Ok(values.pop()),
            count => Err(Malformed::new(format!(
                "{name} is given {count} times; once was expected"
            ))),
        }
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Malformed> {
        self.one(name)?
            .map(|value| word_in(words, name, &Value::String(value)))
            .transpose()
    }

    fn selection(&mut self) -> Result<Selection<String>, Malformed> {
        let category = self.one(CATEGORY)?;
        one_kind([
            (ID, self.all(ID).map(|ids| Selection::Ids(hyphenated(ids)))),
            (NAME, self.all(NAME).map(Selection::Names)),
            (CATEGORY, category.map(|id| Selection::Categories(vec![id]))),
        ])
    }

    /// `is_local` is checked and nothing more: every service of this platform is local to whoever
    /// asks it.
    fn local(&mut self) -> Result<(), Malformed> {
        self.word(LOCAL, &BOOLS).map(|_| ())
    }
}

/// Decodes a name or a value, in which a `+` is a space.
fn decode_form(what: &str, text: &str) -> Result<String, Malformed> {
    decode(text.replace('+', " ").as_bytes()).ok_or_else(|| {
        Malformed::new(format!(
            "{what} is not valid percent-encoded UTF-8: {}",
            describe(&text.into())
        ))
    })
}

#[cfg(test)]
mod tests;
