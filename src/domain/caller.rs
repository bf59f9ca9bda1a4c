//! On whose behalf a request is made.

use std::sync::Arc;

use super::AppInstanceId;

/// Who is calling, as far as it has been proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody has asked.
    Anyone,
    /// One of these application instances; at least one. A token names one, a certificate may name
    /// several.
    Applications(Arc<[AppInstanceId]>),
    /// Whoever runs the platform: may act for all.
    Operator,
}

impl Caller {
    /// One application instance.
    #[must_use]
    pub fn application(app: AppInstanceId) -> Self {
        Self::Applications(Arc::from([app]))
    }

    /// Whether it may do what belongs to this application.
    #[must_use]
    pub fn may_act_for(&self, app: &AppInstanceId) -> bool {
        match self {
            Self::Anyone | Self::Operator => true,
            Self::Applications(apps) => apps.contains(app),
        }
    }

    /// The application that it is, where there is no choice.
    #[must_use]
    pub fn sole_application(&self) -> Option<&AppInstanceId> {
        match self {
            Self::Applications(apps) => match &**apps {
                [app] => Some(app),
                _ => None,
            },
            Self::Anyone | Self::Operator => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_acts_for_itself_alone() {
        let [a, b] = ["a", "b"].map(|id| AppInstanceId::parse(id).unwrap());
        let caller = Caller::application(a.clone());
        assert!(caller.may_act_for(&a) && !caller.may_act_for(&b));
        assert_eq!(caller.sole_application(), Some(&a));
        let both = Caller::Applications(Arc::from([a.clone(), b.clone()]));
        assert!(both.may_act_for(&a) && both.may_act_for(&b));
        assert_eq!(both.sole_application(), None);
        assert!(Caller::Operator.may_act_for(&b) && Caller::Anyone.may_act_for(&b));
    }
}
