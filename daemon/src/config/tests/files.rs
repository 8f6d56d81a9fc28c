//! Files on disk: those that are loaded, and those that are shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn write(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Returns the warnings for a file, with its directory left out.
fn warnings(dir: &Path, path: &Path) -> String {
    let loaded = load(path, &env()).unwrap();
    lines(&loaded.warnings).replace(&dir.display().to_string(), "DIR")
}

#[test]
fn a_file_that_is_not_there_or_cannot_be_read_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(&dir.path().join("none.yaml"), &env()).unwrap_err();
    assert!(matches!(error, ConfigError::Missing(_)), "{error}");
    // A directory stands in for a file without permission: tests may run as root.
    let error = load(dir.path(), &env()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    let path = write(dir.path(), "bad.yaml", "pool: []\n", 0o600);
    let error = load(&path, &env()).unwrap_err();
    assert!(matches!(&error, ConfigError::Invalid(problems) if problems[0].file == path));
    assert_eq!(
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR"),
        "DIR/bad.yaml:1:1: pool: unknown key; did you mean `pools`?"
    );
}

#[test]
fn certificates_that_are_not_there_or_are_none_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = pool_with("", "").replace("pat: s3cret", "pat: s3cret, caFile: ca.pem");
    let path = write(dir, "config.yaml", &text, 0o600);
    let error = |path: &Path| load(path, &env()).unwrap_err().to_string();
    assert!(
        error(&path).contains("azure.caFile: cannot read"),
        "{}",
        error(&path)
    );
    write(dir, "ca.pem", "hello", 0o644);
    assert!(
        error(&path).contains("holds no certificate"),
        "{}",
        error(&path)
    );
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    write(dir, "ca.pem", pem, 0o644);
    assert_eq!(warnings(dir, &path), "");
}

#[test]
fn secrets_that_others_can_read_are_called_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let inline = pool_with("", "");
    let by_file = inline.replace("pat: s3cret", "patFile: pat");
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        let path = write(dir, "inline.yaml", &inline, mode);
        assert_eq!(!warnings(dir, &path).is_empty(), warned, "{mode:o}");
    }
    insta::assert_snapshot!(warnings(dir, &dir.join("inline.yaml")), @"DIR/inline.yaml:5:48: pools[0].azure.pat: every user can read DIR/inline.yaml (mode 0644): `chmod o= DIR/inline.yaml`");

    let path = write(dir, "file.yaml", &by_file, 0o644);
    insta::assert_snapshot!(warnings(dir, &path), @"DIR/file.yaml:5:52: pools[0].azure.patFile: cannot look at DIR/pat: No such file or directory (os error 2)");
    write(dir, "pat", "s3cret", 0o644);
    insta::assert_snapshot!(warnings(dir, &path), @"DIR/file.yaml:5:52: pools[0].azure.patFile: every user can read DIR/pat (mode 0644): `chmod o= DIR/pat`");
    write(dir, "pat", "s3cret", 0o600);
    assert_eq!(warnings(dir, &path), "");
}

#[test]
fn the_files_of_a_principal_are_looked_at_like_a_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for credential in [
        "servicePrincipal: {tenantId: t, clientId: c, clientSecretFile: proof}",
        "servicePrincipal: {tenantId: t, clientId: c, certificateFile: proof}",
        "workloadIdentity: {tenantId: t, clientId: c, tokenFile: proof}",
    ] {
        let text = pool_with("", "").replace("pat: s3cret", credential);
        let path = write(dir, "config.yaml", &text, 0o644);
        let said = warnings(dir, &path);
        assert!(said.contains("File: cannot look at DIR/proof"), "{said}");
        write(dir, "proof", "s3cret", 0o644);
        let said = warnings(dir, &path);
        assert!(
            said.contains("File: every user can read DIR/proof"),
            "{said}"
        );
        write(dir, "proof", "s3cret", 0o600);
        assert_eq!(warnings(dir, &path), "");
        fs::remove_file(dir.join("proof")).unwrap();
    }
    let text = pool_with("", "").replace("pat: s3cret", "managedIdentity: {}");
    let path = write(dir, "config.yaml", &text, 0o644);
    assert_eq!(warnings(dir, &path), "");
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}

#[test]
fn the_shipped_schema_is_that_of_the_program() {
    let path = packaging("config.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, schema()).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema(),
        "run the tests with UPDATE_SCHEMA=1 and commit {}",
        path.display()
    );
}

#[test]
fn the_shipped_example_starts_a_daemon_without_pools() {
    let loaded = good(&fs::read_to_string(packaging("config.yaml")).unwrap());
    assert!(loaded.spec.pools.is_empty());
    assert_eq!(loaded.spec, good("pools: []").spec);
    assert_eq!(lines(&loaded.warnings), "");
}

/// The example is the reference: take the comment signs away, and every key must be there with
/// its default.
#[test]
fn the_shipped_example_shows_every_key() {
    let text = fs::read_to_string(packaging("config.yaml")).unwrap();
    let shown: Vec<&str> = text
        .lines()
        .filter(|line| *line != "pools: []")
        // Prose has a space after its sign, keys have none.
        .filter_map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') || key.starts_with("  ") => Some(key),
            Some(_) => None,
            None => Some(line),
        })
        .collect();
    let loaded = good(&shown.join("\n"));
    assert_eq!(lines(&loaded.warnings), "");
    let value: serde_yaml::Value = serde_yaml::from_str(&shown.join("\n")).unwrap();
    let mut missing = Vec::new();
    compare(file::schema().as_value(), &value, "", &mut missing);
    assert_eq!(
        missing,
        [
            "incus.remote",
            "pools[0].azure.authorityHost",
            "pools[0].azure.managedIdentity",
            "pools[0].azure.pat",
            "pools[0].azure.servicePrincipal",
            "pools[0].azure.workloadIdentity",
        ],
        "`patFile` and `socket` are shown, so what stands in place of them cannot be"
    );
}

/// Notes keys that are missing from `value`, and defaults that differ.
fn compare(
    schema: &serde_json::Value,
    value: &serde_yaml::Value,
    key: &str,
    missing: &mut Vec<String>,
) {
    // The example suggests a spare, of which the default makes none.
    if let Some(default) = schema.get("default").filter(|_| key != "pools[0].spares") {
        assert_eq!(serde_json::to_value(value).unwrap(), *default, "{key}");
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let key = places::join(key, name);
        match value.get(name) {
            Some(value) => compare(property, value, &key, missing),
            None => missing.push(key),
        }
    }
    if schema["items"]["properties"].is_object() {
        compare(&schema["items"], &value[0], &format!("{key}[0]"), missing);
    }
}
