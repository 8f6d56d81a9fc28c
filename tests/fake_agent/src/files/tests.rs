use std::fs;

use serde_json::Value;

use super::{Credentials, FilesError, Root};

const SETTINGS: &str = r#"{"acceptTeeEula":true,"agentId":42,"agentName":"stove-01","poolId":11,
    "poolName":"linux","serverUrl":"http://127.0.0.1:8787/sim-org/","workFolder":"_work"}"#;
const CREDENTIALS: &str =
    r#"{"scheme":"OAuth","data":{"ClientId":"c","authorizationUrl":"http://a/t"}}"#;

fn key_text() -> String {
    let vectors: Value = serde_json::from_str(include_str!("../key/vectors.json")).unwrap();
    vectors["credentials_rsaparams"].to_string()
}

fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let root = Root(directory.path().to_owned());
    (directory, root)
}

fn credentials(text: &str) -> Result<Credentials, FilesError> {
    root(&[
        (".credentials", text),
        (".credentials_rsaparams", &key_text()),
    ])
    .1
    .credentials()
}

#[test]
fn files_are_read_with_or_without_a_byte_order_mark() {
    for mark in ["", "\u{feff}"] {
        let (_directory, root) = root(&[
            (".agent", &format!("{mark}{SETTINGS}")),
            (".credentials", &format!("{mark}{CREDENTIALS}")),
            (".credentials_rsaparams", &format!("{mark}{}", key_text())),
        ]);
        assert_eq!(root.settings().unwrap().agent_id, 42);
        let credentials = root.credentials().unwrap();
        assert_eq!(credentials.client_id, "c");
        assert_eq!(credentials.endpoint_url, "http://a/t");
    }
}

#[test]
fn the_endpoint_may_differ_from_the_audience() {
    let credentials = credentials(
        r#"{"scheme":"OAuth","data":{"clientId":"c","authorizationUrl":"http://a/t","oauthEndpointUrl":"http://b/t"}}"#,
    )
    .unwrap();
    assert_eq!(credentials.authorization_url, "http://a/t");
    assert_eq!(credentials.endpoint_url, "http://b/t");
}

#[test]
fn missing_files_have_their_own_messages() {
    let (_directory, empty) = root(&[]);
    assert_eq!(empty.settings().unwrap_err().to_string(), "Not configured");
    assert!(matches!(
        empty.credentials(),
        Err(FilesError::NoCredentials)
    ));
    let (_directory, keyless) = root(&[(".credentials", CREDENTIALS)]);
    assert!(matches!(keyless.credentials(), Err(FilesError::NoKey(_))));
}

#[test]
fn an_admin_credential_in_place_of_the_agents_own_is_refused() {
    let error = credentials(r#"{"scheme":"PAT","data":{"token":"x"}}"#).unwrap_err();
    assert!(matches!(error, FilesError::Invalid(_)), "{error}");
}

#[test]
fn incomplete_or_hosted_settings_are_refused() {
    for (from, to) in [
        (r#""agentId":42,"#, ""),
        (r#""workFolder":"_work""#, r#""workFolder":"""#),
        (r#""agentId":42"#, r#""agentId":"42""#),
        (r#""poolId":11"#, r#""poolId":0"#),
        (r#""agentName""#, r#""AgentName""#),
        (r#""acceptTeeEula":true"#, r#""agentCloudId":"x""#),
        ("http://127.0.0.1:8787/sim-org/", "dev.azure.com"),
    ] {
        assert!(SETTINGS.contains(from));
        let (_directory, root) = root(&[(".agent", &SETTINGS.replace(from, to))]);
        assert!(root.settings().is_err(), "{from} -> {to}");
    }
}

#[test]
fn the_version_comes_with_the_package() {
    let (directory, root) = root(&[]);
    assert_eq!(root.version(), "4.275.0");
    fs::create_dir(directory.path().join("bin")).unwrap();
    fs::write(root.version_file(), "5.278.0\n").unwrap();
    assert_eq!(root.version(), "5.278.0");
}
