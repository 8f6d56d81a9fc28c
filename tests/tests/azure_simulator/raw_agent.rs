//! The least an agent has to do, written against the wire and not against the fake agent.

use std::path::Path;

use anyhow::{Context, Result};
use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    encoding::AsDer,
    iv::FixedLength,
    rand::SystemRandom,
    rsa::{
        KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey,
        PublicKey,
    },
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use iap_tests::azure_sim::{AzureSim, DEFAULT_ORG};
use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// The personal access token all tests use.
pub(crate) const PAT: &str = "the-admin-pat-of-the-tests";

/// An orchestrator's side: requests with the personal access token.
pub(crate) struct Admin {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) pool: u64,
}

impl Admin {
    /// Gives the simulator a pool and the token.
    pub(crate) fn new(sim: &AzureSim) -> Self {
        sim.add_pat(iap_tests::azure_sim::Pat::manage(PAT));
        let pool = sim.add_pool(DEFAULT_ORG, "linux");
        Self {
            client: Client::new(),
            url: sim.url(DEFAULT_ORG),
            pool,
        }
    }

    /// Starts a request below the pool.
    pub(crate) fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        let url = format!(
            "{}/_apis/distributedtask/pools/{}{rest}",
            self.url, self.pool
        );
        self.client.request(method, url).basic_auth("", Some(PAT))
    }

    pub(crate) async fn register(&self, name: &str, key: Option<&PublicKey>) -> Result<Value> {
        let response = self.post_agent(name, key).await?;
        Ok(response.error_for_status()?.json().await?)
    }

    pub(crate) async fn post_agent(&self, name: &str, key: Option<&PublicKey>) -> Result<Response> {
        let key = key.map(|key| json!({ "publicKey": key_json(key) }));
        let body = json!({"name": name, "version": "4.275.0", "authorization": key});
        Ok(self
            .request(Method::POST, "/agents")
            .json(&body)
            .send()
            .await?)
    }

    pub(crate) async fn delete(&self, agent: u64) -> Result<StatusCode> {
        let request = self.request(Method::DELETE, &format!("/agents/{agent}"));
        Ok(request.send().await?.status())
    }
}

/// Writes a public key as registrations carry it.
pub(crate) fn key_json(key: &PublicKey) -> Value {
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    json!({
        "exponent": encode(key.exponent().big_endian_without_leading_zero()),
        "modulus": encode(key.modulus().big_endian_without_leading_zero()),
    })
}

/// An agent with its key, talking over TCP or over a unix socket.
pub(crate) struct RawAgent {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) token: String,
    client: Client,
    pool_url: String,
    registration: Value,
    key: KeyPair,
}

/// A decrypted message.
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl RawAgent {
    /// Makes a key and registers it.
    pub(crate) async fn register(admin: &Admin, name: &str, socket: Option<&Path>) -> Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048)?;
        let registration = admin.register(name, Some(key.public_key())).await?;
        let client = match socket {
            Some(socket) => Client::builder().unix_socket(socket).build()?,
            None => Client::new(),
        };
        Ok(Self {
            id: registration["id"].as_u64().context("no id")?,
            name: name.to_owned(),
            token: String::new(),
            client,
            pool_url: pool_url(admin),
            registration,
            key,
        })
    }

    /// Makes it talk to the pool the other side has turned to.
    pub(crate) fn move_to(&mut self, admin: &Admin) {
        self.pool_url = pool_url(admin);
    }

    /// Writes an assertion that is valid for five minutes.
    pub(crate) fn assertion(&self, audience: &str) -> Result<String> {
        let authorization = &self.registration["authorization"];
        let now = Timestamp::now().as_second();
        let claims = json!({
            "sub": authorization["clientId"], "iss": authorization["clientId"], "aud": audience,
            "jti": format!("{:x}", fastrand::u128(..)), "nbf": now, "exp": now + 300,
        });
        let header = json!({"typ": "JWT", "alg": "RS256"});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key.sign(
            &RSA_PKCS1_SHA256,
            &random,
            signed.as_bytes(),
            &mut signature,
        )?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub(crate) fn authorization_url(&self) -> &str {
        text(&self.registration["authorization"]["authorizationUrl"])
    }

    pub(crate) async fn ask_token(&self, endpoint: &str, audience: &str) -> Result<Response> {
        let form = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &self.assertion(audience)?),
        ];
        let form: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = self.client.post(endpoint).body(form);
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        Ok(request.send().await?)
    }

    /// Exchanges an assertion for a token.
    pub(crate) async fn fetch_token(&mut self) -> Result<()> {
        let url = self.authorization_url().to_owned();
        let answer: Value = self
            .ask_token(&url, &url)
            .await?
            .error_for_status()?
            .json()
            .await?;
        self.token = answer["access_token"]
            .as_str()
            .context("no token")?
            .to_owned();
        Ok(())
    }

    /// Starts a request below the pool with the agent's token.
    pub(crate) fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        let url = format!("{}{rest}", self.pool_url);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn post_session(&self) -> Result<Response> {
        let body = json!({
            "sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": "a-host",
            "agent": {"id": self.id, "name": self.name, "version": "4.275.0", "status": 0},
            "systemCapabilities": {"Agent.Name": self.name, "bash": "/bin/bash"},
        });
        Ok(self
            .request(Method::POST, "/sessions")
            .json(&body)
            .send()
            .await?)
    }

    /// Begins a session and unwraps its key.
    pub(crate) async fn begin(&self) -> Result<(String, [u8; 32])> {
        let session: Value = self
            .post_session()
            .await?
            .error_for_status()?
            .json()
            .await?;
        assert_eq!(session["encryptionKey"]["encrypted"], true);
        let wrapped = session["encryptionKey"]["value"]
            .as_str()
            .context("no key")?;
        let wrapped = STANDARD.decode(wrapped)?;
        let key = PrivateDecryptingKey::from_pkcs8(self.key.as_der()?.as_ref())?;
        let key = OaepPrivateDecryptingKey::new(key)?;
        let mut plain = vec![0; key.min_output_size()];
        let plain = key.decrypt(&OAEP_SHA1_MGF1SHA1, &wrapped, &mut plain, None)?;
        let id = session["sessionId"]
            .as_str()
            .context("no session")?
            .to_owned();
        Ok((id, <[u8; 32]>::try_from(&*plain)?))
    }

    pub(crate) async fn poll(&self, session: &str, last: u64) -> Result<Response> {
        let rest = format!("/messages?sessionId={session}&lastMessageId={last}");
        Ok(self.request(Method::GET, &rest).send().await?)
    }

    /// Polls until a message comes, and decrypts it.
    pub(crate) async fn receive(&self, session: &str, key: &[u8; 32]) -> Result<Message> {
        let response = self.poll(session, 0).await?.error_for_status()?;
        assert_eq!(response.status(), StatusCode::OK, "the poll ran out");
        let message: Value = response.json().await?;
        let text = |name: &str| STANDARD.decode(message[name].as_str().unwrap_or_default());
        let (iv, mut body) = (text("iv")?, text("body")?);
        let context = DecryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(&*iv)?));
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key)?)?;
        Ok(Message {
            id: message["messageId"].as_u64().context("no message id")?,
            kind: message["messageType"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            body: serde_json::from_slice(key.decrypt(&mut body, context)?)?,
        })
    }

    pub(crate) async fn acknowledge(&self, session: &str, message: u64) -> Result<StatusCode> {
        let rest = format!("/messages/{message}?sessionId={session}");
        Ok(self.request(Method::DELETE, &rest).send().await?.status())
    }

    pub(crate) async fn renew(&self, request: u64) -> Result<Response> {
        let lock = "00000000-0000-0000-0000-000000000000";
        let rest = format!("/jobrequests/{request}?lockToken={lock}");
        let body = json!({ "requestId": request });
        Ok(self
            .request(Method::PATCH, &rest)
            .json(&body)
            .send()
            .await?)
    }

    /// Starts a request to a job's plan with the job's token.
    pub(crate) fn plan_request(&self, job: &Value, rest: &str) -> RequestBuilder {
        let endpoint = &job["resources"]["endpoints"][0];
        let url = format!(
            "{}{}/_apis/distributedtask/hubs/{}/plans/{}{rest}",
            text(&endpoint["url"]),
            text(&job["plan"]["scopeIdentifier"]),
            text(&job["plan"]["planType"]),
            text(&job["plan"]["planId"]),
        );
        let token = &endpoint["authorization"]["parameters"]["AccessToken"];
        self.client.post(url).bearer_auth(text(token))
    }

    /// Reports a job's end as a worker does with `--once`.
    pub(crate) async fn complete(&self, job: &Value, result: &str) -> Result<StatusCode> {
        let event = json!({
            "name": "JobCompleted", "jobId": job["jobId"], "requestId": job["requestId"],
            "result": result, "agentShuttingDown": true,
        });
        Ok(self
            .plan_request(job, "/events")
            .json(&event)
            .send()
            .await?
            .status())
    }

    pub(crate) async fn end(&self, session: &str) -> Result<StatusCode> {
        let rest = format!("/sessions/{session}");
        Ok(self.request(Method::DELETE, &rest).send().await?.status())
    }
}

fn pool_url(admin: &Admin) -> String {
    format!("{}/_apis/distributedtask/pools/{}", admin.url, admin.pool)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
