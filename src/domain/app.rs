//! What an application says of itself when it registers with the platform.

use super::service::JsonText;

/// `AppInfo` without `appInstanceId`, which is the key. Checked when it was taken in; the platform
/// itself goes by none of it.
///
/// Source: GS MEC 011 V3.1.1, 7.1.2.6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppInfo {
    /// `appName`.
    pub name: String,
    /// All members, `appName` among them: nulls, unknown members and `appInstanceId` dropped.
    pub json: JsonText,
}
