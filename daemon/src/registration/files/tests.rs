use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// A key whose every use is known; thrown away long ago.
const VECTORS: &str = include_str!("vectors.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn part(parameters: &Value, name: &str) -> Vec<u8> {
    BASE64_STANDARD
        .decode(parameters[name].as_str().unwrap())
        .unwrap()
}

fn key() -> AgentKey {
    let vectors = vectors();
    let part = |name| part(&vectors["credentials_rsaparams"], name);
    AgentKey {
        modulus: part("modulus"),
        exponent: part("exponent"),
        d: part("d"),
        p: part("p"),
        q: part("q"),
        dp: part("dp"),
        dq: part("dq"),
        inverse_q: part("inverseQ"),
    }
}

fn agent() -> CreatedAgent {
    CreatedAgent {
        id: 42,
        name: "stove-01".into(),
        client_id: "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f".into(),
        authorization_url: "https://contoso.vssps.visualstudio.com/_apis/oauth2/token".into(),
        server_url: Some("https://dev.azure.com/contoso/".into()),
    }
}

fn files(agent: &CreatedAgent, url: &str, hosted: bool) -> [Value; 3] {
    let files = bundle(&key(), agent, 11, "linux", url, hosted).unwrap();
    let names: Vec<_> = files.iter().map(|file| (file.name, file.mode)).collect();
    assert_eq!(
        names,
        [
            (".agent", 0o600),
            (".credentials", 0o600),
            (".credentials_rsaparams", 0o600)
        ]
    );
    let files: Vec<_> = files
        .iter()
        .map(|file| serde_json::from_slice(&file.content).unwrap())
        .collect();
    files.try_into().unwrap()
}

fn sign(parameters: &Value, message: &[u8]) -> Vec<u8> {
    let part = |name| part(parameters, name);
    let pair = KeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents {
            n: part("modulus"),
            e: part("exponent"),
        },
        d: part("d"),
        p: part("p"),
        q: part("q"),
        dP: part("dp"),
        dQ: part("dq"),
        qInv: part("inverseQ"),
    })
    .unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .unwrap();
    signature
}

#[test]
fn the_hosted_bundle_is_what_config_sh_writes() {
    let [settings, credentials, parameters] =
        files(&agent(), "https://dev.azure.com/contoso", true);
    assert_eq!(
        settings,
        json!({"acceptTeeEula": true, "agentId": 42, "agentName": "stove-01", "poolId": 11,
            "poolName": "linux", "serverUrl": "https://dev.azure.com/contoso/",
            "workFolder": "_work"})
    );
    let token_url = "https://contoso.vssps.visualstudio.com/_apis/oauth2/token";
    assert_eq!(
        credentials,
        json!({"scheme": "OAuth", "data": {
            "clientId": "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f",
            "authorizationUrl": token_url, "oauthEndpointUrl": token_url}})
    );
    assert_eq!(parameters, vectors()["credentials_rsaparams"]);
}

#[test]
fn the_key_file_signs_the_known_assertion() {
    let [_, _, parameters] = files(&agent(), "https://dev.azure.com/contoso", true);
    let vectors = vectors();
    let compact = vectors["jwt"]["compact"].as_str().unwrap();
    let (message, signature) = compact.rsplit_once('.').unwrap();
    let signed = sign(&parameters, message.as_bytes());
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(signed), signature);
}

#[test]
fn a_generated_key_survives_the_file() {
    let key = AgentKey::generate().unwrap();
    let files = bundle(
        &key,
        &agent(),
        11,
        "linux",
        "https://dev.azure.com/contoso",
        true,
    )
    .unwrap();
    let parameters: Value = serde_json::from_slice(&files[2].content).unwrap();
    let signature = sign(&parameters, b"message");
    PublicKeyComponents {
        n: key.public().modulus,
        e: key.public().exponent,
    }
    .verify(
        &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
        b"message",
        &signature,
    )
    .unwrap();
}

#[test]
fn a_server_of_ones_own_is_reached_where_it_was_configured() {
    let agent = CreatedAgent {
        authorization_url: "https://public.example.com/tfs/_apis/oauth2/token/x".into(),
        server_url: Some("https://public.example.com/tfs/DefaultCollection/".into()),
        ..agent()
    };
    let [settings, credentials, _] = files(
        &agent,
        "http://tfs.internal:8080/tfs/DefaultCollection",
        false,
    );
    assert_eq!(
        settings["serverUrl"],
        "http://tfs.internal:8080/tfs/DefaultCollection/"
    );
    let data = &credentials["data"];
    assert_eq!(
        data["authorizationUrl"],
        "https://public.example.com/tfs/_apis/oauth2/token/x"
    );
    assert_eq!(
        data["oauthEndpointUrl"],
        "http://tfs.internal:8080/tfs/_apis/oauth2/token/x"
    );
}

#[test]
fn a_server_reached_by_its_own_name_keeps_its_token_url() {
    let agent = CreatedAgent {
        authorization_url: "https://ado.example.com/_apis/oauth2/token".into(),
        server_url: None,
        ..agent()
    };
    let url = "https://ado.example.com/DefaultCollection";
    let [settings, credentials, _] = files(&agent, url, false);
    assert_eq!(settings["serverUrl"], url);
    assert_eq!(
        credentials["data"]["oauthEndpointUrl"],
        agent.authorization_url
    );
}

#[test]
fn a_hosted_server_url_on_another_host_gives_only_its_path() {
    let agent = CreatedAgent {
        server_url: Some("https://contoso.visualstudio.com/DefaultCollection".into()),
        ..agent()
    };
    let [settings, credentials, _] = files(&agent, "https://dev.azure.com/contoso", true);
    assert_eq!(
        settings["serverUrl"],
        "https://dev.azure.com/DefaultCollection"
    );
    assert_eq!(
        credentials["data"]["oauthEndpointUrl"],
        agent.authorization_url
    );
}

#[test]
fn an_odd_url_is_an_error_and_files_do_not_print_their_content() {
    let agent = CreatedAgent {
        server_url: Some("nowhere".into()),
        ..agent()
    };
    let error = bundle(&key(), &agent, 11, "linux", "https://a/b", true).unwrap_err();
    assert!(
        error.to_string().contains("\"nowhere\" is not a URL"),
        "{error}"
    );
    let files = bundle(&key(), &self::agent(), 11, "linux", "https://a/b", true).unwrap();
    assert_eq!(
        format!("{:?}", files[2]),
        "BundleFile { name: \".credentials_rsaparams\", mode: 600, .. }"
    );
}
