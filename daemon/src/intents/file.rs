//! `intents.json`: written whole or not at all, read at start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{IntentSet, Pause, PoolIntents};

/// Raised when an older daemon would misread what is written.
const VERSION: u64 = 1;

/// Why a wish could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum IntentsError {
    /// The file is another daemon's, or could not be read: it is left as it is.
    #[error("{0}")]
    LeftAlone(String),
    /// It could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Pause>,
    #[serde(default)]
    pools: BTreeMap<String, PoolIntents>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: BTreeMap<String, Pause>,
}

/// Read first: the rest of a newer file may mean anything.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

/// The file, and whether it may be written.
pub(super) struct IntentsFile {
    folder: PathBuf,
    path: PathBuf,
    left_alone: Option<String>,
}

/// What a start finds.
pub(super) struct Loaded {
    pub(super) file: IntentsFile,
    pub(super) set: IntentSet,
    /// What is wrong, in words.
    pub(super) trouble: Option<String>,
}

impl IntentsFile {
    pub(super) fn load(state_dir: &Path) -> Loaded {
        let path = state_dir.join("intents.json");
        let mut file = Self {
            folder: state_dir.to_owned(),
            path,
            left_alone: None,
        };
        let content = match fs::read(&file.path) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => return file.with(None),
            Err(error) => {
                return file.leave_alone(format!("cannot be read ({error})"));
            }
        };
        match serde_json::from_slice::<Head>(&content) {
            Ok(Head { version }) if version > VERSION => {
                return file.leave_alone(format!(
                    "was written by a newer iapd (version {version}, this one knows {VERSION})"
                ));
            }
            _ => {}
        }
        match serde_json::from_slice::<Content>(&content) {
            Ok(content) => Loaded {
                file,
                set: IntentSet {
                    revision: 0,
                    host: content.host,
                    pools: content.pools,
                    members: content.members,
                    shutdown: None,
                },
                trouble: None,
            },
            Err(error) => {
                let aside = file.set_aside();
                let path = file.path.display();
                let text = match aside {
                    Ok(aside) => format!(
                        "{path} is damaged ({error}) and was set aside as {}: the pauses and \
                         counts in it are forgotten",
                        aside.display()
                    ),
                    Err(moving) => {
                        file.left_alone = Some(format!(
                            "{path} is damaged ({error}) and cannot be set aside ({moving})"
                        ));
                        file.left_alone.clone().unwrap_or_default()
                    }
                };
                file.with(Some(text))
            }
        }
    }

    fn with(self, trouble: Option<String>) -> Loaded {
        Loaded {
            file: self,
            set: IntentSet::default(),
            trouble,
        }
    }

    fn leave_alone(mut self, why: String) -> Loaded {
        let text = format!(
            "{} {why}: the pauses and counts in it are not in force, and it is left as it is",
            self.path.display()
        );
        self.left_alone = Some(text.clone());
        self.with(Some(text))
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let now = Timestamp::now().as_second();
        let aside = self.folder.join(format!("intents.json.damaged-{now}"));
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// Writes all that is wanted. When this returns it survives a power cut.
    pub(super) fn save(&self, set: &IntentSet) -> Result<(), IntentsError> {
        if let Some(why) = &self.left_alone {
            return Err(IntentsError::LeftAlone(why.clone()));
        }
        let content = Content {
            version: VERSION,
            host: set.host.clone(),
            pools: set.pools.clone(),
            members: set.members.clone(),
        };
        let text = serde_json::to_vec_pretty(&content).expect("intents are plain data");
        self.write(&text).map_err(|source| IntentsError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join("intents.json.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }
}
