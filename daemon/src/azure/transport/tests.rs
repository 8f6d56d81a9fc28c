use std::sync::Arc;

use super::*;

fn transport(url: &str) -> Result<Transport, AzureError> {
    let pat = Credential::Pat("pat".into());
    Transport::new(url, pat, None, Arc::new(|_| ()), Deadlines::default())
}

#[test]
fn addresses_keep_the_collection_and_encode_what_is_asked() {
    for (base, start) in [
        (
            "https://dev.azure.com/contoso/",
            "https://dev.azure.com/contoso",
        ),
        (
            " https://contoso.visualstudio.com ",
            "https://contoso.visualstudio.com",
        ),
        (
            "http://tfs:8080/tfs/DefaultCollection",
            "http://tfs:8080/tfs/DefaultCollection",
        ),
    ] {
        let transport = transport(base).unwrap();
        assert_eq!(transport.url(), start);
        let request =
            Request::get(Operation::FindPool, "distributedtask/pools").query("poolName", "a b&c/ü");
        assert_eq!(
            transport.address(&request).as_str(),
            format!(
                "{start}/_apis/distributedtask/pools?api-version=6.0&poolName=a+b%26c%2F%C3%BC"
            )
        );
    }
}

#[test]
fn unusable_urls_are_refused_without_quoting_a_password() {
    for url in [
        "contoso",
        "ftp://host/x",
        "https://host/x?y=1",
        "https://user:hunter2@host/x",
    ] {
        let error = transport(url).err().unwrap();
        assert!(matches!(error, AzureError::Url { .. }), "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn only_the_same_scheme_host_and_port_are_azures_own() {
    let transport = transport("https://ado.example.com/DefaultCollection").unwrap();
    for (url, own) in [
        ("https://ado.example.com/other", true),
        ("https://ADO.example.com:443/x", true),
        ("http://ado.example.com/x", false),
        ("https://ado.example.com:8443/x", false),
        ("https://download.example.com/x", false),
        ("https://ado.example.com.evil.example/x", false),
    ] {
        assert_eq!(transport.owns(&url.parse().unwrap()), own, "{url}");
    }
}

#[test]
fn a_certificate_file_that_is_none_is_named() {
    let pat = || Credential::Pat("pat".into());
    let make = |path: &Path| {
        let observer: CallObserver = Arc::new(|_| ());
        Transport::new(
            "https://a/b",
            pat(),
            Some(path),
            observer,
            Deadlines::default(),
        )
        .err()
    };
    let missing = make(Path::new("/nonexistent/ca.pem")).unwrap();
    assert_eq!(
        missing.to_string(),
        "cannot read the CA certificates in /nonexistent/ca.pem"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not a certificate").unwrap();
    let empty = make(file.path()).unwrap();
    assert_eq!(
        empty.to_string(),
        format!("no CA certificate in {}", file.path().display())
    );
}
