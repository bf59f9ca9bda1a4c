//! placeholder
pub(super) enum Finding {
    Sound,
    #[allow(dead_code)]
    Suspect(String),
}
pub(super) fn inspect(_: &std::path::Path) -> std::io::Result<Finding> {
    Ok(Finding::Sound)
}
