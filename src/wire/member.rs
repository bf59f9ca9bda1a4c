//! Reading JSON objects member by member, so that every refusal names the member and what was
//! expected. Unknown members are ignored, `null` counts as absent, arrays never pass for objects.

use serde_json::{Map, Value};

/// Why a body or a query is refused: a sentence for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// A refusal that concerns several members.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// A JSON object that is taken apart. Remembers where in the body it stands.
#[derive(Debug)]
pub struct Members {
    path: String,
    map: Map<String, Value>,
}

impl Members {
    /// Reads a body, which must be one JSON object.
    ///
    /// # Errors
    /// [`Malformed`] for an empty body, invalid JSON or UTF-8, or another kind of value.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Malformed::new(
                "the body is empty; a JSON object was expected",
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self {
                path: String::new(),
                map,
            }),
            Ok(other) => Err(Malformed(format!(
                "the body is {}; a JSON object was expected",
                describe(&other)
            ))),
            Err(error) => Err(Malformed(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object out of an array.
    pub(super) fn nested(path: String, value: Value) -> Result<Self, Malformed> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(wrong(&path, "an object", &other)),
        }
    }

    /// Where a member stands, for messages: `transportInfo.endpoint.uris`.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Whether a member is there and not `null`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a member as it is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes members for absent that are an empty string.
    pub(super) fn forget_empty(&mut self, names: &[&str]) {
        for name in names {
            if self.map.get(*name).is_some_and(|value| *value == "") {
                self.map.remove(*name);
            }
        }
    }

    fn require<T>(&self, name: &str, expected: &str, value: Option<T>) -> Result<T, Malformed> {
        value.ok_or_else(|| {
            Malformed(format!(
                "{} is missing; {expected} was expected",
                self.path_of(name)
            ))
        })
    }

    /// An optional string.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_string(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path_of(name), "a string", &other)),
        }
    }

    /// A string that must be there; it may be empty.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn string(&mut self, name: &str) -> Result<String, Malformed> {
        let text = self.optional_string(name)?;
        self.require(name, "a string", text)
    }

    /// A string that must be there and say something.
    ///
    /// # Errors
    /// When it is missing, empty or something else.
    pub fn text(&mut self, name: &str) -> Result<String, Malformed> {
        let text = self.string(name)?;
        if text.is_empty() {
            return Err(empty(&self.path_of(name)));
        }
        Ok(text)
    }

    /// An optional string that says something when it is there.
    ///
    /// # Errors
    /// When it is empty or something else.
    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        match self.optional_string(name)? {
            Some(text) if text.is_empty() => Err(empty(&self.path_of(name))),
            text => Ok(text),
        }
    }

    /// An optional boolean.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_bool(&mut self, name: &str) -> Result<Option<bool>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(&self.path_of(name), "true or false", &other)),
        }
    }

    /// An optional whole number, 0 or more. `expected` says more exactly what it is.
    ///
    /// # Errors
    /// When it is something else: negative, fractional, quoted.
    pub fn optional_whole(&mut self, name: &str, expected: &str) -> Result<Option<u64>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match whole(&value) {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(&self.path_of(name), expected, &value)),
            },
        }
    }

    /// An optional word out of a closed list.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn optional_word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Malformed> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        word_in(words, &self.path_of(name), &value).map(Some)
    }

    /// A word out of a closed list that must be there.
    ///
    /// # Errors
    /// When it is missing or none of them.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<T, Malformed> {
        let word = self.optional_word(name, words)?;
        self.require(name, &one_of(words), word)
    }

    /// An optional object.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_object(&mut self, name: &str) -> Result<Option<Members>, Malformed> {
        let path = self.path_of(name);
        self.take(name)
            .map(|value| Members::nested(path, value))
            .transpose()
    }

    /// An object that must be there.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn object(&mut self, name: &str) -> Result<Members, Malformed> {
        let object = self.optional_object(name)?;
        self.require(name, "an object", object)
    }

    /// An optional array.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_array(&mut self, name: &str) -> Result<Option<Vec<Value>>, Malformed> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong(&self.path_of(name), "an array", &other)),
        }
    }

    /// An optional array of strings.
    ///
    /// # Errors
    /// When it is, or contains, something else.
    pub fn optional_strings(&mut self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let Some(items) = self.optional_array(name)? else {
            return Ok(None);
        };
        let path = self.path_of(name);
        let text = |(index, item)| match item {
            Value::String(text) => Ok(text),
            other => Err(wrong(&format!("{path}[{index}]"), "a string", &other)),
        };
        items
            .into_iter()
            .enumerate()
            .map(text)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An optional array of strings that say something.
    ///
    /// # Errors
    /// When it is, or contains, something else.
    pub fn optional_texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let texts = self.optional_strings(name)?;
        match texts.iter().flatten().position(String::is_empty) {
            Some(index) => Err(empty(&format!("{}[{index}]", self.path_of(name)))),
            None => Ok(texts),
        }
    }

    /// An array that must be there, of one or more strings that say something.
    ///
    /// # Errors
    /// When it is missing or empty, or is, or contains, something else.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, Malformed> {
        let texts = self.optional_texts(name)?;
        let texts = self.require(name, "an array of strings", texts)?;
        if texts.is_empty() {
            return Err(empty(&self.path_of(name)));
        }
        Ok(texts)
    }

    /// An optional array of words out of a closed list.
    ///
    /// # Errors
    /// When it is, or contains, something else.
    pub fn optional_words<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(items) = self.optional_array(name)? else {
            return Ok(None);
        };
        let path = self.path_of(name);
        let word = |(index, item)| word_in(words, &format!("{path}[{index}]"), item);
        items
            .iter()
            .enumerate()
            .map(word)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An optional array of objects.
    ///
    /// # Errors
    /// When it is, or contains, something else.
    pub fn optional_objects(&mut self, name: &str) -> Result<Option<Vec<Members>>, Malformed> {
        let Some(items) = self.optional_array(name)? else {
            return Ok(None);
        };
        let path = self.path_of(name);
        let object = |(index, item)| Members::nested(format!("{path}[{index}]"), item);
        items
            .into_iter()
            .enumerate()
            .map(object)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// What is left, `null` members dropped, as JSON text.
    #[must_use]
    pub fn into_json(mut self) -> String {
        self.map.retain(|_, value| !value.is_null());
        Value::Object(self.map).to_string()
    }

    /// Puts a member back in.
    pub fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }
}

/// A whole number, 0 or more. `5.0` is one: JSON knows only numbers.
fn whole(value: &Value) -> Option<u64> {
    /// Up to here every whole number has a floating-point number of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        let fits = float.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&float);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, and between 0 and 2^53"
        )]
        fits.then_some(float as u64)
    })
}

/// A refusal of one member.
#[must_use]
pub fn wrong(path: &str, expected: &str, found: &Value) -> Malformed {
    Malformed(format!(
        "{path} is {}; {expected} was expected",
        describe(found)
    ))
}

/// The meaning of a word out of a closed list.
///
/// # Errors
/// When it is none of them.
pub fn word_in<T: Copy>(words: &[(&str, T)], path: &str, value: &Value) -> Result<T, Malformed> {
    let word = value
        .as_str()
        .and_then(|text| words.iter().find(|(word, _)| *word == text));
    match word {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(wrong(path, &one_of(words), value)),
    }
}

/// A refusal of a member that says nothing.
#[must_use]
pub fn empty(path: &str) -> Malformed {
    Malformed(format!("{path} must not be empty"))
}

fn one_of<T>(words: &[(&str, T)]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(" or ")
}

/// A value as people name it, short even when the value is long.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Value::String(text) => {
            format!("{:?}…", text.chars().take(40).collect::<String>())
        }
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
