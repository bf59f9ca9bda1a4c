//! Which services somebody asks for, in a query, a subscription or a watch.

use super::id::ServiceId;
use super::service::{Category, Locality, Service};

/// One kind of name, or none: the standard excludes mixtures.
///
/// Source: GS MEC 011 V2.2.1, 8.2.3.3.1 and 8.1.3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<C> {
    /// Every service.
    All,
    /// Those with one of these `serInstanceId`s, hyphenated where they can be ours.
    Ids(Vec<String>),
    /// Those with one of these names.
    Names(Vec<String>),
    /// Those of one of these categories.
    Categories(Vec<C>),
}

/// Something that names a category. Categories are the same when their ids are.
pub trait NamesCategory {
    /// The category's id.
    fn category_id(&self) -> &str;
}

impl NamesCategory for Category {
    fn category_id(&self) -> &str {
        &self.id
    }
}

impl NamesCategory for String {
    fn category_id(&self) -> &str {
        self
    }
}

/// What a selection looks at, besides the id. Kept with every event, because the service may be
/// gone when its consumers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `serName`.
    pub name: String,
    /// The id of `serCategory`.
    pub category_id: Option<String>,
}

impl Subject {
    /// A name or category id is no longer in bytes: it stands with every event, and a stored event is
    /// small.
    pub const NAME_BYTES_MAX: usize = 255;

    /// Of a registered service. Names are bounded when they are taken in; older stores may hold
    /// longer ones, which are cut.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let category_id = service.category.as_ref().map(|c| c.id.as_str());
        Self::new(&service.name, category_id)
    }

    /// The same of the two words alone.
    #[must_use]
    pub fn new(name: &str, category_id: Option<&str>) -> Self {
        Self {
            name: cut(name),
            category_id: category_id.map(cut),
        }
    }
}

fn cut(name: &str) -> String {
    let mut end = name.len().min(Subject::NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

impl<C: NamesCategory> Selection<C> {
    /// Whether a service is asked for.
    #[must_use]
    pub fn matches(&self, id: ServiceId, subject: &Subject) -> bool {
        self.matches_parts(id, &subject.name, subject.category_id.as_deref())
    }

    fn matches_parts(&self, id: ServiceId, name: &str, category: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => {
                let id = id.to_string();
                ids.contains(&id)
            }
            Self::Names(names) => names.iter().any(|asked| asked == name),
            Self::Categories(asked) => category
                .is_some_and(|category| asked.iter().any(|asked| asked.category_id() == category)),
        }
    }
}

/// The parameters of a list. Source: GS MEC 011 V2.2.1, 8.2.3.3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `ser_instance_id`, `ser_name` or `ser_category_id`.
    pub selection: Selection<String>,
    /// `scope_of_locality`.
    pub scope_of_locality: Option<Locality>,
    /// `consumed_local_only`.
    pub consumed_local_only: Option<bool>,
    /// `version`: EdgeGallery's, not the standard's.
    pub version: Option<String>,
}

impl Query {
    /// Asks for everything.
    pub const ALL: Self = Self {
        selection: Selection::All,
        scope_of_locality: None,
        consumed_local_only: None,
        version: None,
    };

    /// Whether a service is asked for. `is_local` is no question here: all services of this
    /// platform are local to whoever asks it.
    #[must_use]
    pub fn matches(&self, id: ServiceId, service: &Service) -> bool {
        let category = service.category.as_ref().map(|c| c.id.as_str());
        self.scope_of_locality
            .is_none_or(|scope| scope == service.scope_of_locality)
            && self
                .consumed_local_only
                .is_none_or(|only| only == service.consumed_local_only)
            && self
                .version
                .as_ref()
                .is_none_or(|version| *version == service.version)
            && self.selection.matches_parts(id, &service.name, category)
    }
}
