//! The smallest agent there is.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use iapd::registration::BundleFile;
use serde_json::{Value, json};

/// An agent as far as Azure sees one: made of nothing but the files it was given.
pub(crate) struct Listener {
    settings: Value,
    token: String,
    session: String,
    http: reqwest::Client,
}

impl Listener {
    pub(crate) async fn start(files: &[BundleFile]) -> Self {
        let [settings, credentials, parameters]: [Value; 3] = files
            .iter()
            .map(|file| serde_json::from_slice(&file.content).unwrap())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let http = reqwest::Client::new();
        let data = &credentials["data"];
        let answer: Value = http
            .post(data["oauthEndpointUrl"].as_str().unwrap())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!(
                "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth\
                 %3Aclient-assertion-type%3Ajwt-bearer&client_assertion={}",
                assertion(data, &parameters)
            ))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let token = answer["access_token"]
            .as_str()
            .expect("the token is granted")
            .to_owned();
        let mut listener = Self {
            settings,
            token,
            session: String::new(),
            http,
        };
        let agent = json!({"id": listener.settings["agentId"]});
        let body = json!({"ownerName": "guest", "agent": agent,
            "systemCapabilities": {"stove": "1", "Agent.Version": "4.275.0"}});
        let session = listener.call("POST", "sessions?", Some(body)).await;
        listener.session = session["sessionId"].as_str().unwrap().to_owned();
        listener
    }

    /// Takes the job that it was given.
    pub(crate) async fn receive(&self) {
        self.call(
            "GET",
            &format!("messages?sessionId={}&", self.session),
            None,
        )
        .await;
    }

    pub(crate) async fn finish(&self, request: i64, result: &str) {
        let lock = "lockToken=00000000-0000-0000-0000-000000000000";
        let body = json!({"requestId": request, "finishTime": "2026-11-23T10:05:00Z",
            "result": result});
        self.call(
            "PATCH",
            &format!("jobrequests/{request}?{lock}&"),
            Some(body),
        )
        .await;
    }

    async fn call(&self, method: &str, rest: &str, body: Option<Value>) -> Value {
        let url = self.settings["serverUrl"]
            .as_str()
            .unwrap()
            .trim_end_matches('/');
        let pool = &self.settings["poolId"];
        let url =
            format!("{url}/_apis/distributedtask/pools/{pool}/{rest}api-version=6.0-preview.1");
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{method} {rest}: {response:?}"
        );
        response.json().await.unwrap()
    }
}

fn assertion(data: &Value, parameters: &Value) -> String {
    let part = |name: &str| {
        BASE64_STANDARD
            .decode(parameters[name].as_str().unwrap())
            .unwrap()
    };
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
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"sub": data["clientId"], "iss": data["clientId"],
        "aud": data["authorizationUrl"], "jti": format!("{:x}", fastrand::u128(..)),
        "nbf": now, "exp": now + 300});
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        encode(r#"{"typ":"JWT","alg":"RS256"}"#),
        encode(&claims.to_string())
    );
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
