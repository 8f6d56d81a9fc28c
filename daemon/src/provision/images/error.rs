//! Why an image was not rolled back to, or images were not listed or removed.

use crate::incus::IncusError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is nothing to go back from.
    #[error("there is no image alias {target} in Incus project {project}")]
    NoAlias {
        /// The alias.
        target: String,
        /// Where it is not.
        project: String,
    },
    /// There is nothing to go back to.
    #[error("{target} has no image older than the present one, {}", short(current))]
    NoneOlder {
        /// The alias.
        target: String,
        /// What it points at.
        current: String,
    },
    /// No image of the target is called that.
    #[error("{target} has no image {fingerprint}")]
    NoSuchImage {
        /// The alias.
        target: String,
        /// What was asked for.
        fingerprint: String,
    },
    /// Several images of the target are called that.
    #[error("more than one image of {target} begins with {fingerprint}")]
    Ambiguous {
        /// The alias.
        target: String,
        /// What was asked for.
        fingerprint: String,
    },
    /// The wanted image is the present one.
    #[error("{target} is image {} already", short(fingerprint))]
    IsCurrent {
        /// The alias.
        target: String,
        /// What it points at.
        fingerprint: String,
    },
    /// Somebody else was quicker.
    #[error(
        "{target} is image {} by now, not {}: nothing was changed",
        short(found),
        short(expected)
    )]
    Moved {
        /// The alias.
        target: String,
        /// What it was thought to point at.
        expected: String,
        /// What it points at.
        found: String,
    },
    /// The target is about to get a new image.
    #[error("provision job {job} for {target} is {state}")]
    JobUnderWay {
        /// The alias.
        target: String,
        /// The job that makes it.
        job: String,
        /// `queued` or `running`.
        state: &'static str,
    },
    /// There is no such project.
    #[error("there is no Incus project {0}")]
    NoSuchProject(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// Incus did not do or tell something.
    #[error("cannot {what}")]
    Incus {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: IncusError,
    },
}

impl ImageError {
    /// Returns a closure that wraps an Incus error with what was tried.
    pub(super) fn incus(what: &'static str) -> impl FnOnce(IncusError) -> Self {
        move |source| Self::Incus { what, source }
    }
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}
