//! The alarm for admin credentials within a job's reach.
//!
//! A test hands over the SHA-256 of its admin secret (several separated by commas), never the secret, so
//! that the search itself leaks nothing. What can be compared is then only whole words: every run of
//! characters a token may have, as it stands and inside base64 (`Basic` credentials).

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

use crate::environment::Environment;

/// Larger files are programs and job output, not configuration.
const MAX_FILE: u64 = 1 << 20;

/// Secrets to look for, as digests.
pub struct Forbidden(Vec<[u8; 32]>);

impl Forbidden {
    /// Reads `FAKE_AGENT_FORBIDDEN`; nothing to look for when it is not set.
    pub fn from_env(env: &Environment) -> Self {
        let digests = env.get("FAKE_AGENT_FORBIDDEN").unwrap_or("").split(',');
        Self(
            digests
                .filter_map(|digest| parse_hex(digest.trim()))
                .collect(),
        )
    }

    /// Returns the first place that holds a forbidden secret.
    pub fn find(&self, root: &Path, env: &Environment, arguments: &[String]) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        if let Some((name, _)) = env.all().find(|(_, value)| self.is_in(value)) {
            return Some(format!("environment variable {name}"));
        }
        if arguments.iter().any(|argument| self.is_in(argument)) {
            return Some("an argument".to_owned());
        }
        self.find_in_files(root)
    }

    fn find_in_files(&self, directory: &Path) -> Option<String> {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            let found = if meta.is_dir() {
                self.find_in_files(&path)
            } else if meta.is_file() && meta.len() <= MAX_FILE {
                fs::read(&path)
                    .ok()
                    .filter(|bytes| self.is_in(&String::from_utf8_lossy(bytes)))
                    .map(|_| path.display().to_string())
            } else {
                None
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn is_in(&self, text: &str) -> bool {
        let whole = text.trim();
        self.is(whole) || self.in_words(text) || base64_words(text).any(|text| self.in_words(&text))
    }

    fn in_words(&self, text: &str) -> bool {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.~".contains(c)))
            .any(|word| self.is(word))
    }

    fn is(&self, word: &str) -> bool {
        !word.is_empty()
            && self
                .0
                .iter()
                .any(|wanted| digest(&SHA256, word.as_bytes()).as_ref() == wanted)
    }
}

fn base64_words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c)))
        .filter(|word| word.len() >= 8)
        .filter_map(|word| {
            BASE64_STANDARD
                .decode(word)
                .or_else(|_| BASE64_STANDARD_NO_PAD.decode(word))
                .ok()
        })
        .filter_map(|bytes| String::from_utf8(bytes).ok())
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Forbidden;
    use crate::environment::Environment;

    fn forbidden(extra: &[(&str, &str)]) -> (Forbidden, Environment) {
        let digest: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"sim-pat-0123")
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut pairs: Vec<_> = extra
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        pairs.push(("FAKE_AGENT_FORBIDDEN".to_owned(), digest));
        let env = Environment::new(pairs, "");
        (Forbidden::from_env(&env), env)
    }

    #[test]
    fn a_clean_agent_passes() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join(".credentials"),
            "sim-pat-0124 sim-pat",
        )
        .unwrap();
        let (forbidden, env) = forbidden(&[("A", "sim")]);
        assert_eq!(
            forbidden.find(directory.path(), &env, &["--once".to_owned()]),
            None
        );
    }

    #[test]
    fn the_secret_is_found_wherever_a_job_could_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let found = |extra: &[(&str, &str)], arguments: &[String]| {
            let (forbidden, env) = forbidden(extra);
            forbidden.find(directory.path(), &env, arguments)
        };
        assert!(
            found(&[("X", "a=\"sim-pat-0123\";")], &[])
                .unwrap()
                .contains("variable X")
        );
        // base64 of ":sim-pat-0123"
        assert!(found(&[("X", "Basic OnNpbS1wYXQtMDEyMw==")], &[]).is_some());
        assert!(found(&[], &["sim-pat-0123".to_owned()]).is_some());
        let nested = directory.path().join("_work");
        fs::create_dir(&nested).unwrap();
        fs::write(nested.join("token"), "{\"t\":\"sim-pat-0123\"}\n").unwrap();
        assert!(found(&[], &[]).unwrap().ends_with("_work/token"));
    }
}
