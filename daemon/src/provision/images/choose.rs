//! Which image of a target is the present one, which one to go back to, and which ones nobody
//! needs. Pure.
//!
//! ```text
//!   older ◄──────────────────────────────────────────► newer
//!    go   │ kept: the newest few from the    │ left by a rollback:
//!         │ present one back, and the one    │ kept until they are asked for,
//!         │ that it took the place of        │ or a newer one becomes the present
//! ```

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::incus::Image;

use super::super::publish::{JOB, REPLACES, TARGET};
use super::error::ImageError;

/// Images of one target that are kept, the present one included.
const KEPT_IMAGES: usize = 3;

/// Which images of a target can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRule {
    /// So many are kept, counted from the present one back.
    pub keep: usize,
    /// Also those newer than the present one, which a rollback left.
    pub newer: bool,
    /// Of those only these.
    pub only: Option<BTreeSet<String>>,
}

impl Default for PruneRule {
    fn default() -> Self {
        Self {
            keep: KEPT_IMAGES,
            newer: false,
            only: None,
        }
    }
}

/// Returns whether a provision job made an image.
pub(super) fn is_provisioned(image: &Image) -> bool {
    image.properties.contains_key(JOB)
}

/// Returns whether a provision job made an image for this target.
pub(super) fn is_made_for(image: &Image, target: &str) -> bool {
    is_provisioned(image) && image.properties.get(TARGET).is_some_and(|of| of == target)
}

/// Returns whether the target's alias points at an image.
pub(super) fn is_current(image: &Image, target: &str) -> bool {
    image.aliases.iter().any(|alias| alias == target)
}

/// Returns a target's images, the newest first: those made for it, the one it is, and those that
/// it was, whoever made them.
pub(super) fn images_of<'a>(images: &'a [Image], target: &str) -> Vec<&'a Image> {
    let made = images.iter().filter(|image| is_made_for(image, target));
    let replaced: BTreeSet<&String> = made.filter_map(replaces).collect();
    let mut found: Vec<&Image> = images
        .iter()
        .filter(|image| {
            is_made_for(image, target)
                || is_current(image, target)
                || replaced.contains(&image.fingerprint)
        })
        .collect();
    found.sort_by_key(|image| Reverse(age_key(image)));
    found
}

/// Returns a target's present image and the one to point it at: the one whose fingerprint begins
/// with `to`, or, when that is empty, the one before.
pub(super) fn way_back<'a>(
    images: &'a [Image],
    target: &str,
    project: &str,
    to: &str,
) -> Result<(Option<&'a Image>, &'a Image), ImageError> {
    let images = images_of(images, target);
    let current = images.iter().find(|image| is_current(image, target));
    let current = current.copied();
    if to.is_empty() {
        let current = current.ok_or_else(|| ImageError::NoAlias {
            target: target.to_owned(),
            project: project.to_owned(),
        })?;
        let to = before(&images, current).ok_or_else(|| ImageError::NoneOlder {
            target: target.to_owned(),
            current: current.fingerprint.clone(),
        })?;
        return Ok((Some(current), to));
    }
    let to = to.to_lowercase();
    let mut called = images;
    called.retain(|image| image.fingerprint.starts_with(&to));
    let (target, fingerprint) = (target.to_owned(), to);
    match called[..] {
        [] => Err(ImageError::NoSuchImage {
            target,
            fingerprint,
        }),
        [wanted] if current.is_some_and(|current| current.fingerprint == wanted.fingerprint) => {
            Err(ImageError::IsCurrent {
                target,
                fingerprint: wanted.fingerprint.clone(),
            })
        }
        [wanted] => Ok((current, wanted)),
        _ => Err(ImageError::Ambiguous {
            target,
            fingerprint,
        }),
    }
}

/// Returns the image before the present one. After a rollback and a new image, the newest older
/// one is the one that was rolled back from: what the new image took the place of goes first.
fn before<'a>(newest_first: &[&'a Image], current: &Image) -> Option<&'a Image> {
    let older = |image: &&&Image| age_key(image) < age_key(current);
    let replaced = newest_first
        .iter()
        .filter(older)
        .find(|image| replaces(current) == Some(&image.fingerprint));
    replaced
        .or_else(|| newest_first.iter().find(older))
        .copied()
}

/// Returns the images of a target that nobody needs, the newest first: made for it, without an
/// alias, with no instance of them (`used` are those with one), and not among those that are kept.
/// Never the one that the present one took the place of, which a rollback goes to.
pub(super) fn outdated<'a>(
    images: &'a [Image],
    target: &str,
    rule: &PruneRule,
    used: &BTreeSet<String>,
) -> Vec<&'a Image> {
    let all = images_of(images, target);
    let current = all.iter().find(|image| is_current(image, target));
    let before = current.and_then(|current| before(&all, current));
    let is_newer = |image: &Image| current.is_some_and(|c| age_key(image) > age_key(c));
    let (newer, mut old): (Vec<&Image>, Vec<&Image>) = all
        .iter()
        .copied()
        .filter(|image| is_made_for(image, target) || is_current(image, target))
        .partition(|image| is_newer(image));
    let mut found = if rule.newer { newer } else { Vec::new() };
    found.extend(old.split_off(rule.keep.min(old.len())));
    let is_before = |image: &Image| before.is_some_and(|b| b.fingerprint == image.fingerprint);
    found.retain(|image| {
        image.aliases.is_empty()
            && !used.contains(&image.fingerprint)
            && !(rule.keep > 1 && is_before(image))
            && rule
                .only
                .as_ref()
                .is_none_or(|only| only.contains(&image.fingerprint))
    });
    found
}

fn replaces(image: &Image) -> Option<&String> {
    image.properties.get(REPLACES)
}

/// By age; a fingerprint tells two of the same moment apart.
fn age_key(image: &Image) -> (Option<Timestamp>, &str) {
    (image.created_at, &image.fingerprint)
}

#[cfg(test)]
mod tests;
