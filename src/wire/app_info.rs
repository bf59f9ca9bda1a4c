//! `AppInfo`: what an application says of itself when it registers with the platform.
//!
//! Source: GS MEC 011 V3.1.1, 7.1.2.6.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::member::{Malformed, Members, wrong};
use super::service::{CategoryRef, optional_category};
use super::transport::{EndPointInfo, endpoint, security};
use crate::domain::service::JsonText;
use crate::domain::{AppInfo, AppInstanceId};

/// Reads one element of an array.
type Element = fn(Members) -> Result<Kept, Malformed>;

/// What an application depends on, and what reads one of each.
const DEPENDENCIES: [(&str, Element); 4] = [
    ("appServiceRequired", service_dependency),
    ("appServiceOptional", service_dependency),
    ("appFeatureRequired", feature_dependency),
    ("appFeatureOptional", feature_dependency),
];

/// Reads the `AppInfo` of a POST or PUT, with the id that the application has already, if any.
///
/// Source: GS MEC 011 V3.1.1, 7.1.2.6, also for which members need or exclude others.
///
/// # Errors
/// [`Malformed`], naming the member.
pub fn parse(body: &[u8]) -> Result<(Option<AppInstanceId>, AppInfo), Malformed> {
    let mut members = Members::parse(body)?;
    let mut kept = Kept::default();
    let name = members.text("appName")?;
    kept.put("appName", name.clone());
    kept.put("appProvider", members.optional_string("appProvider")?);
    kept.put_category(&mut members, "appCategory")?;
    let app_d_id = members.optional_text("appDId")?;
    let id = members
        .optional_string("appInstanceId")?
        .map(|id| AppInstanceId::parse(&id))
        .transpose()
        .map_err(|error| Malformed::new(error.to_string()))?;
    let endpoint = members
        .optional_object("endpoint")?
        .map(endpoint)
        .transpose()?;
    for (name, dependency) in DEPENDENCIES {
        let given = kept.put_list(&mut members, name, dependency)?;
        if given && app_d_id.is_some() {
            return Err(Malformed::new(format!(
                "{name} and appDId exclude each other"
            )));
        }
    }
    let by_mec = members.optional_bool("isInsByMec")?;
    if by_mec == Some(true) {
        let because = "isInsByMec is true, with which it is expected";
        if app_d_id.is_none() {
            return Err(missing("appDId", because));
        }
        if id.is_none() {
            return Err(missing("appInstanceId", because));
        }
    } else if endpoint.is_none() {
        let because = "isInsByMec is not true, without which it is expected";
        return Err(missing("endpoint", because));
    }
    kept.put("appDId", app_d_id);
    let endpoint = endpoint.as_ref().map(EndPointInfo::new);
    kept.put("endpoint", endpoint.map(value_of));
    kept.put("isInsByMec", by_mec);
    match members.take("appProfile") {
        Some(profile) if !profile.is_object() => {
            return Err(wrong("appProfile", "an object", &profile));
        }
        profile => kept.put("appProfile", profile),
    }
    let json = JsonText::from_json(Value::from(kept).to_string());
    Ok((id, AppInfo { name, json }))
}

fn missing(name: &str, because: &str) -> Malformed {
    Malformed::new(format!("{name} is missing; {because}"))
}

/// `ServiceDependency`.
fn service_dependency(mut members: Members) -> Result<Kept, Malformed> {
    let mut kept = Kept::default();
    let transports = "serTransportDependencies";
    kept.put("serName", members.text("serName")?);
    kept.put_category(&mut members, "serCategory")?;
    kept.put("version", members.string("version")?);
    kept.put_list(&mut members, transports, transport_dependency)?;
    kept.put("requestedPermissions", members.take("requestedPermissions"));
    Ok(kept)
}

/// `TransportDependency`.
fn transport_dependency(mut members: Members) -> Result<Kept, Malformed> {
    let mut kept = Kept::default();
    let transport = transport_descriptor(members.object("transport")?)?;
    kept.put("transport", transport);
    kept.put("serializers", members.texts("serializers")?);
    kept.put("labels", members.texts("labels")?);
    Ok(kept)
}

/// A `TransportInfo` of no transport in particular: without `id` and `endpoint`.
fn transport_descriptor(mut members: Members) -> Result<Kept, Malformed> {
    let mut kept = Kept::default();
    kept.put("name", members.string("name")?);
    kept.put("description", members.optional_string("description")?);
    kept.put("type", members.text("type")?);
    kept.put("protocol", members.string("protocol")?);
    kept.put("version", members.string("version")?);
    let security = security(members.object("security")?)?;
    kept.put(
        "security",
        serde_json::from_str::<Value>(security.as_str()).ok(),
    );
    kept.put("implSpecificInfo", members.take("implSpecificInfo"));
    Ok(kept)
}

/// `FeatureDependency`.
fn feature_dependency(mut members: Members) -> Result<Kept, Malformed> {
    let mut kept = Kept::default();
    kept.put("featureName", members.text("featureName")?);
    kept.put("version", members.string("version")?);
    Ok(kept)
}

/// The members of an object that were understood and are to be kept.
#[derive(Default)]
struct Kept(Map<String, Value>);

impl Kept {
    /// Keeps a member; what is absent stays so.
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        if !value.is_null() {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Keeps an optional `CategoryRef`.
    fn put_category(&mut self, members: &mut Members, name: &str) -> Result<(), Malformed> {
        let category = optional_category(members, name)?;
        self.put(name, category.as_ref().map(CategoryRef::new).map(value_of));
        Ok(())
    }

    /// Keeps an optional array of objects; an empty one counts as absent. Says whether it is there.
    fn put_list(
        &mut self,
        members: &mut Members,
        name: &str,
        element: Element,
    ) -> Result<bool, Malformed> {
        let list = members.optional_objects(name)?.unwrap_or_default();
        let list: Vec<Kept> = list.into_iter().map(element).collect::<Result<_, _>>()?;
        let given = !list.is_empty();
        if given {
            self.put(name, list);
        }
        Ok(given)
    }
}

impl From<Kept> for Value {
    fn from(kept: Kept) -> Self {
        Self::Object(kept.0)
    }
}

/// What is answered with as a value: texts, numbers and JSON, which cannot fail.
fn value_of(rendered: impl Serialize) -> Value {
    serde_json::to_value(rendered).unwrap_or_default()
}

/// `AppInfo` as answered. Source: GS MEC 011 V3.1.1, 7.1.2.6.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInfoBody<'a> {
    app_instance_id: &'a str,
    #[serde(flatten)]
    members: BTreeMap<&'a str, &'a RawValue>,
}

impl<'a> AppInfoBody<'a> {
    /// Renders what an application said of itself, with its id.
    #[must_use]
    pub fn new(id: &'a AppInstanceId, info: &'a AppInfo) -> Self {
        Self {
            app_instance_id: id.as_str(),
            // It was written here, and a checksum has guarded it since.
            members: serde_json::from_str(info.json.as_str()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
