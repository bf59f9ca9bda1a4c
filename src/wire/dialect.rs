//! Which clients are spoken to.

/// Names, links and leniencies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// ETSI MEC 011 alone.
    #[default]
    Standard,
    /// EdgeGallery's clients besides: what the standard leaves open or forbids, and they do.
    EdgeGallery,
}

impl Dialect {
    /// In front of every path that EdgeGallery's clients call.
    pub const EDGEGALLERY_PREFIX: &str = "/mep";

    /// Whether EdgeGallery's clients are served.
    #[must_use]
    pub fn is_edgegallery(self) -> bool {
        self == Self::EdgeGallery
    }
}
