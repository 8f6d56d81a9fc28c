//! Vectors checked with the .NET serialiser and RSA classes; the key is a throw-away one.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{AgentKey, Claims, KeyError};

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn key_text(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let mut params = vectors()["credentials_rsaparams"].clone();
    change(params.as_object_mut().unwrap());
    params.to_string()
}

fn key() -> AgentKey {
    AgentKey::from_json(&key_text(|_| ())).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn the_assertion_equals_the_vector() {
    let vectors = vectors();
    let jwt = &vectors["jwt"];
    let assertion = key()
        .assertion(&Claims {
            sub: jwt["clientId"].as_str().unwrap(),
            jti: "5d6f7a81-92a3-4bb4-8cc5-dd6ee7ff8091",
            iss: jwt["clientId"].as_str().unwrap(),
            aud: jwt["audience"].as_str().unwrap(),
            nbf: jwt["nbf"].as_i64().unwrap(),
            exp: jwt["exp"].as_i64().unwrap(),
        })
        .unwrap();
    assert_eq!(assertion, jwt["compact"].as_str().unwrap());
}

#[test]
fn the_session_key_and_a_message_open() {
    let vectors = vectors();
    let session = &vectors["session"];
    let opened = key()
        .open_session_key(&bytes(&session["encryptionKey"]["value"]))
        .unwrap();
    assert_eq!(opened.0, bytes(&session["aesKeyPlainBase64"]));

    let message = &vectors["message"];
    let plain = opened
        .decrypt(&bytes(&message["iv"]), &bytes(&message["body"]))
        .unwrap();
    assert_eq!(plain, message["plainBody"].as_str().unwrap());
}

#[test]
fn a_damaged_message_is_refused() {
    let vectors = vectors();
    let session = &vectors["session"];
    let opened = key()
        .open_session_key(&bytes(&session["encryptionKey"]["value"]))
        .unwrap();
    let message = &vectors["message"];
    let mut body = bytes(&message["body"]);
    body.truncate(body.len() - 1);
    assert!(matches!(
        opened.decrypt(&bytes(&message["iv"]), &body),
        Err(KeyError::Message)
    ));
    assert!(matches!(
        opened.decrypt(&[0; 8], &bytes(&message["body"])),
        Err(KeyError::Message)
    ));
}

#[test]
fn member_names_are_case_sensitive() {
    let text = key_text(|params| {
        let d = params.remove("d").unwrap();
        params.insert("D".into(), d);
    });
    assert!(matches!(AgentKey::from_json(&text), Err(KeyError::Json(_))));
}

#[test]
fn the_two_pascal_case_members_may_be_missing_and_unknown_ones_are_ignored() {
    let text = key_text(|params| {
        params.remove("ContainerName");
        params.remove("UseCng");
        params.insert("later".into(), json!(1));
    });
    assert!(AgentKey::from_json(&text).is_ok());
}

#[test]
fn a_member_of_the_wrong_width_is_refused() {
    for (member, wanted) in [("d", 256), ("p", 128), ("inverseQ", 128)] {
        let text = key_text(|params| {
            let mut short = bytes(&params[member]);
            short.remove(0);
            params.insert(member.into(), json!(BASE64_STANDARD.encode(short)));
        });
        match AgentKey::from_json(&text) {
            Err(KeyError::Width {
                member: found,
                wanted: width,
                ..
            }) => {
                assert_eq!((found, width), (member, wanted));
            }
            other => panic!("{member}: {other:?}"),
        }
    }
}

#[test]
fn url_safe_base64_is_refused() {
    let text = key_text(|params| {
        let modulus = params["modulus"]
            .as_str()
            .unwrap()
            .replace('+', "-")
            .replace('/', "_");
        params.insert("modulus".into(), json!(modulus));
    });
    assert!(matches!(
        AgentKey::from_json(&text),
        Err(KeyError::Base64("modulus"))
    ));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let text = key_text(|params| {
        let p = params["p"].clone();
        params.insert("q".into(), p);
    });
    assert!(matches!(
        AgentKey::from_json(&text),
        Err(KeyError::Rejected)
    ));
}
