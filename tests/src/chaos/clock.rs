//! iapd's wall clock, which can be set without touching the machine's: a library that is preloaded
//! into it adds what a file says. Rust needs a C compiler's driver to link, so there is one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

const SOURCE: &str = include_str!("clock.c");

/// See the module.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Clock {
    /// Builds the library in a directory.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .stdin(Stdio::null())
            .output()
            .context("there is no C compiler")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot build {library:?}: {said}");
        let path = dir.join("clock");
        let file = File::create(&path)?;
        let clock = Self {
            library,
            path,
            file,
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets how many seconds it is ahead, or behind when negative.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0)?;
        Ok(())
    }

    /// Gives a program this clock.
    pub fn give(&self, program: &mut Command) {
        program
            .env("LD_PRELOAD", &self.library)
            .env("CHAOS_CLOCK", &self.path);
    }
}
