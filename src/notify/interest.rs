//! Who may have to be told of an event: the subscriptions by what they select.

use std::collections::{HashMap, HashSet};

use crate::domain::selection::NamesCategory;
use crate::domain::{Notice, Selection, Subscription, SubscriptionId};

type Ids = HashSet<SubscriptionId>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interest {
    all: Ids,
    by_id: HashMap<String, Ids>,
    by_name: HashMap<String, Ids>,
    by_category: HashMap<String, Ids>,
}

impl Interest {
    /// A subscription comes.
    pub(super) fn add(&mut self, subscription: &Subscription) {
        let id = subscription.id;
        let Some((words, map)) = self.of(subscription) else {
            self.all.insert(id);
            return;
        };
        for word in words {
            map.entry(word).or_default().insert(id);
        }
    }

    /// A subscription goes.
    pub(super) fn remove(&mut self, subscription: &Subscription) {
        let id = subscription.id;
        let Some((words, map)) = self.of(subscription) else {
            self.all.remove(&id);
            return;
        };
        for word in words {
            if let Some(ids) = map.get_mut(&word) {
                ids.remove(&id);
                if ids.is_empty() {
                    map.remove(&word);
                }
            }
        }
    }

    /// The words under which a subscription stands, and where; `None`: it wants everything.
    fn of(
        &mut self,
        subscription: &Subscription,
    ) -> Option<(Vec<String>, &mut HashMap<String, Ids>)> {
        match &subscription.filter.selection {
            Selection::All => None,
            Selection::Ids(ids) => Some((ids.clone(), &mut self.by_id)),
            Selection::Names(names) => Some((names.clone(), &mut self.by_name)),
            Selection::Categories(categories) => {
                let ids = categories.iter().map(|c| c.category_id().to_owned());
                Some((ids.collect(), &mut self.by_category))
            }
        }
    }

    /// Those that may have to be told: too many rather than too few, and some of them twice. Each filter
    /// has the last word.
    pub(super) fn each(&self, notice: &Notice<'_>, mut concerned: impl FnMut(SubscriptionId)) {
        let mut take = |ids: Option<&Ids>| {
            ids.into_iter().flatten().copied().for_each(&mut concerned);
        };
        take(Some(&self.all));
        if !self.by_id.is_empty() {
            take(self.by_id.get(&notice.service.to_string()));
        }
        for subject in std::iter::once(notice.subject).chain(notice.former) {
            take(self.by_name.get(&subject.name));
            let category = subject.category_id.as_ref();
            take(category.and_then(|id| self.by_category.get(id)));
        }
    }
}
