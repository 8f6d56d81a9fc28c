//! Finds out what the credentials can and cannot do, by asking Azure: one line for each ability,
//! in the order in which they depend on each other, each with what to do about it. Changes
//! nothing, neither here nor there.

use std::time::Duration;

use futures_util::future::join_all;
use iap_common::error::chain;

use crate::azure::{Azure, AzureError};
use crate::config::describe_credential;
use crate::pool::spec::{CredentialSpec, PoolSpec, ProofSpec};

/// Nobody wants to look at a table longer for one line of it. Azure answers in well below a second.
const PATIENCE: Duration = Duration::from_secs(15);
const NOT_TRIED: &str = "not tried";

/// Whether a credential has an ability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// That cannot be told, or was not tried because something before it is missing.
    Unknown,
}

/// One thing that a credential has to be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// The agent pool in Azure that it is about; empty when it is about the organisation.
    pub azure_pool: String,
    /// Such as `manage agents`.
    pub name: &'static str,
    /// Whether it has it.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do; empty when nothing has to be done.
    pub fix: String,
}

/// What was found out about one credential in one organisation.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The organisation's URL.
    pub url: String,
    /// The credential.
    pub credential: CredentialSpec,
    /// Our pools that use it.
    pub pools: Vec<String>,
    /// What it is good for.
    pub abilities: Vec<Ability>,
}

/// A credential to check, with the client of it.
pub struct Subject {
    azure: Azure,
    credential: CredentialSpec,
    pools: Vec<String>,
    azure_pools: Vec<String>,
}

impl Subject {
    /// Adds a pool to the subjects: to the one with its credential, or as a new one. `client` is
    /// called for the latter.
    pub fn add<E>(
        subjects: &mut Vec<Self>,
        pool: &PoolSpec,
        client: impl FnOnce() -> Result<Azure, E>,
    ) -> Result<(), E> {
        let same = |subject: &&mut Self| {
            subject.azure.url() == pool.azure.url && subject.credential == pool.azure.credential
        };
        if let Some(subject) = subjects.iter_mut().find(same) {
            subject.pools.push(pool.name.clone());
            if !subject.azure_pools.contains(&pool.azure.pool) {
                subject.azure_pools.push(pool.azure.pool.clone());
            }
            return Ok(());
        }
        subjects.push(Self {
            azure: client()?,
            credential: pool.azure.credential.clone(),
            pools: vec![pool.name.clone()],
            azure_pools: vec![pool.azure.pool.clone()],
        });
        Ok(())
    }
}

/// Checks all subjects at once.
pub async fn check(subjects: Vec<Subject>) -> Vec<Checked> {
    join_all(subjects.into_iter().map(check_one)).await
}

async fn check_one(subject: Subject) -> Checked {
    let mut check = Check {
        azure: &subject.azure,
        credential: &subject.credential,
        abilities: Vec::new(),
        goes_on: true,
    };
    check.organisation().await;
    for pool in &subject.azure_pools {
        check.pool(pool).await;
    }
    let abilities = check.abilities;
    Checked {
        url: subject.azure.url().to_owned(),
        credential: subject.credential,
        pools: subject.pools,
        abilities,
    }
}

struct Check<'a> {
    azure: &'a Azure,
    credential: &'a CredentialSpec,
    abilities: Vec<Ability>,
    /// What follows depends on what was found so far.
    goes_on: bool,
}

/// How a question ended.
enum Found<T> {
    Answer(T),
    /// Azure would not have the credential, or not for this.
    Refused(String),
    /// There was no answer, or none of use.
    Failed(String),
}

async fn ask<T>(question: impl Future<Output = Result<T, AzureError>>) -> Found<T> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Found::Answer(answer),
        Ok(Err(error)) if error.is_rejected() => Found::Refused(refusal(&error)),
        Ok(Err(error)) => Found::Failed(chain(&error).to_string()),
        Err(_) => Found::Failed(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Returns Azure's own words, since the table says already what was asked.
fn refusal(error: &AzureError) -> String {
    match error {
        AzureError::Shared(error) => refusal(error),
        AzureError::Rejected { reason, .. } => reason.clone(),
        other => chain(other).to_string(),
    }
}

impl Check<'_> {
    async fn organisation(&mut self) {
        let fix = fix_token(self.credential);
        match ask(self.azure.has_token()).await {
            Found::Answer(()) => {
                let what = describe_credential(self.credential);
                self.note("", "get a token", Verdict::Yes, &what, "");
            }
            Found::Refused(why) => self.stop("", "get a token", Verdict::No, &why, &fix),
            Found::Failed(why) => {
                let fix = fix_way_to_token(self.credential);
                self.stop("", "get a token", Verdict::No, &why, &fix);
            }
        }
        if !self.goes_on {
            self.note("", "reach Azure", Verdict::Unknown, NOT_TRIED, "");
            self.note("", "sign in", Verdict::Unknown, NOT_TRIED, "");
            return;
        }
        match ask(self.azure.identity()).await {
            Found::Answer(name) => {
                self.note("", "reach Azure", Verdict::Yes, "", "");
                let detail = if name.is_empty() {
                    "Azure does not say as whom".to_owned()
                } else {
                    format!("as {name}")
                };
                self.note("", "sign in", Verdict::Yes, &detail, "");
            }
            Found::Refused(why) => {
                self.note("", "reach Azure", Verdict::Yes, "", "");
                let fix = fix_sign_in(self.credential);
                self.stop("", "sign in", Verdict::No, &why, &fix);
            }
            Found::Failed(why) => {
                let fix = "check azure.url, the name service, HTTPS_PROXY and NO_PROXY of iapd, \
                           and azure.caFile for a private CA";
                self.stop("", "reach Azure", Verdict::No, &why, fix);
                self.note("", "sign in", Verdict::Unknown, NOT_TRIED, "");
            }
        }
    }

    async fn pool(&mut self, pool: &str) {
        let mut rest = vec!["see the pool", "list agents", "manage agents"].into_iter();
        if self.goes_on {
            let id = self.see(pool, rest.next().unwrap_or_default()).await;
            if let Some(id) = id {
                self.list(pool, id, rest.next().unwrap_or_default()).await;
                self.manage(pool, id, rest.next().unwrap_or_default()).await;
            }
        }
        for name in rest {
            self.note(pool, name, Verdict::Unknown, NOT_TRIED, "");
        }
    }

    async fn see(&mut self, pool: &str, name: &'static str) -> Option<i32> {
        let fix = format!(
            "create {pool:?} under Organization settings > Agent pools, or set azure.pool; if it is \
             there, {}",
            fix_role(self.credential, pool, "Reader")
        );
        match ask(self.azure.find_pool(pool)).await {
            Found::Answer(Some(found)) => {
                self.note(pool, name, Verdict::Yes, &format!("id {}", found.id), "");
                return Some(found.id);
            }
            Found::Answer(None) => {
                let detail = "there is none of this name, or it is not shown to us";
                self.note(pool, name, Verdict::No, detail, &fix);
            }
            Found::Refused(why) => {
                let fix = fix_role(self.credential, pool, "Reader");
                self.note(pool, name, Verdict::No, &why, &fix);
            }
            Found::Failed(why) => self.note(pool, name, Verdict::Unknown, &why, ""),
        }
        None
    }

    async fn list(&mut self, pool: &str, id: i32, name: &'static str) {
        match ask(self.azure.agents(id)).await {
            Found::Answer(agents) => {
                let detail = format!("{} there", agents.len());
                self.note(pool, name, Verdict::Yes, &detail, "");
            }
            Found::Refused(why) => {
                let fix = fix_role(self.credential, pool, "Reader");
                self.note(pool, name, Verdict::No, &why, &fix);
            }
            Found::Failed(why) => self.note(pool, name, Verdict::Unknown, &why, ""),
        }
    }

    async fn manage(&mut self, pool: &str, id: i32, name: &'static str) {
        let fix = fix_role(self.credential, pool, "Administrator");
        match ask(self.azure.may_manage(id)).await {
            Found::Answer(Some(true)) => {
                let detail = "a change to an agent that does not exist was refused for that alone";
                self.note(pool, name, Verdict::Yes, detail, "");
            }
            Found::Refused(why) => self.note(pool, name, Verdict::No, &why, &fix),
            Found::Failed(why) => self.note(pool, name, Verdict::Unknown, &why, ""),
            Found::Answer(_) => match ask(self.azure.is_administrator(pool)).await {
                Found::Answer(false) => {
                    let detail = "Azure does not list the pool among those it lets us manage";
                    self.note(pool, name, Verdict::No, detail, &fix);
                }
                Found::Answer(true) => {
                    let detail = "an administrator of the pool; whether the token's scope allows \
                                  changes cannot be told without making one";
                    self.note(pool, name, Verdict::Unknown, detail, "");
                }
                Found::Refused(why) | Found::Failed(why) => {
                    self.note(pool, name, Verdict::Unknown, &why, "");
                }
            },
        }
    }

    fn note(&mut self, pool: &str, name: &'static str, verdict: Verdict, detail: &str, fix: &str) {
        self.abilities.push(Ability {
            azure_pool: pool.to_owned(),
            name,
            verdict,
            detail: detail.to_owned(),
            fix: fix.to_owned(),
        });
    }

    fn stop(&mut self, pool: &str, name: &'static str, verdict: Verdict, detail: &str, fix: &str) {
        self.goes_on = false;
        self.note(pool, name, verdict, detail, fix);
    }
}

fn fix_token(credential: &CredentialSpec) -> String {
    match credential {
        CredentialSpec::Pat(_) => "write a good token into azure.pat".to_owned(),
        CredentialSpec::PatFile(file) => format!("write a good token into {}", file.display()),
        CredentialSpec::ManagedIdentity { .. } => {
            "give the machine an identity (Azure portal, the machine, Identity), and check \
             azure.managedIdentity.clientId"
                .to_owned()
        }
        CredentialSpec::Application(application) => {
            let file = application.proof.file().display();
            match &application.proof {
                ProofSpec::ClientSecret(_) => format!(
                    "check tenantId and clientId, or make a new secret (Entra ID, App \
                     registrations, Certificates & secrets) and write its value into {file}"
                ),
                ProofSpec::Certificate(_) => format!(
                    "check tenantId and clientId, this host's clock, and that the certificate in \
                     {file} is among the application's (Entra ID, App registrations, Certificates \
                     & secrets)"
                ),
                ProofSpec::FederatedToken(_) => format!(
                    "check tenantId and clientId, that the token in {file} is being renewed, and \
                     its issuer, subject and audience against the application's federated \
                     credentials"
                ),
            }
        }
    }
}

fn fix_way_to_token(credential: &CredentialSpec) -> String {
    match credential {
        CredentialSpec::ManagedIdentity { endpoint, .. } => {
            format!("only a machine in Azure has a metadata service; it is asked for at {endpoint}")
        }
        CredentialSpec::Application(application) => format!(
            "iapd has to reach {}: check the name service, HTTPS_PROXY and NO_PROXY of iapd",
            application.authority_host
        ),
        CredentialSpec::Pat(_) | CredentialSpec::PatFile(_) => fix_token(credential),
    }
}

fn is_pat(credential: &CredentialSpec) -> bool {
    matches!(
        credential,
        CredentialSpec::Pat(_) | CredentialSpec::PatFile(_)
    )
}

fn fix_sign_in(credential: &CredentialSpec) -> String {
    if is_pat(credential) {
        let place = match credential {
            CredentialSpec::PatFile(file) => file.display().to_string(),
            _ => "azure.pat".to_owned(),
        };
        format!(
            "make a token of scope Agent Pools (read & manage) in this organisation and write it \
             into {place}"
        )
    } else {
        "add the principal to the organisation (Organization settings > Users); the organisation \
         must be connected to the principal's directory"
            .to_owned()
    }
}

fn fix_role(credential: &CredentialSpec, pool: &str, role: &str) -> String {
    let place = format!("Organization settings > Agent pools > {pool} > Security");
    if is_pat(credential) {
        format!(
            "the token needs the scope Agent Pools (read & manage), its owner the role {role} \
             ({place})"
        )
    } else {
        format!("give the principal the role {role} ({place})")
    }
}
