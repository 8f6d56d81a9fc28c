//! What bytes from outside go through, each part from the bytes to what is made of them: for
//! `tests/fuzz`, and for its corpus here. Whatever they are: no panic, and neither time nor memory
//! that grows faster than they do.

use std::path::Path;

use crate::config::Environment;
use crate::{azure, config, incus, pool};

/// A configuration file, and what is printed of it.
pub fn config(bytes: &[u8]) {
    let env = Environment {
        config_file: "config.yaml".into(),
        config_dir: "/nonexistent".into(),
        host_name: "build-01".to_owned(),
        credentials_dir: Some(Path::new("/nonexistent/credentials").to_owned()),
        state_dir: "/nonexistent/state".into(),
        incus_socket: "/nonexistent/incus".into(),
        identity_endpoint: "http://127.0.0.1:9".to_owned(),
    };
    match config::parse(bytes, &env) {
        Ok(loaded) => {
            config::describe(&loaded.spec);
            config::effective_yaml(&loaded.spec, &loaded.lines);
        }
        Err(problems) => {
            for problem in problems {
                let _ = problem.to_string();
            }
        }
    }
}

/// Answers and events of Incus.
pub fn incus(bytes: &[u8]) {
    incus::untrusted::read(bytes);
}

/// Answers of Azure.
pub fn azure(bytes: &[u8]) {
    azure::untrusted::read(bytes);
}

/// What a guest has written: its hook's status file, and the output of commands.
pub fn guest(bytes: &[u8]) {
    pool::apply::note::parse(bytes);
    incus::untrusted::split(bytes);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    type Read = fn(&[u8]);

    /// Real input and what fuzzing found.
    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");

    #[test]
    fn nothing_of_the_corpus_does_harm() {
        let targets: [(&str, Read); 4] = [
            ("config", config),
            ("incus", incus),
            ("azure", azure),
            ("guest", guest),
        ];
        for (name, read) in targets {
            let folder = std::fs::read_dir(Path::new(CORPUS).join(name)).expect(name);
            let mut count = 0;
            for file in folder {
                let path = file.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let began = Instant::now();
                read(&bytes);
                let took = began.elapsed();
                assert!(took < Duration::from_secs(5), "{path:?} takes {took:?}");
                count += 1;
            }
            assert!(count > 0, "{name}");
        }
    }
}
