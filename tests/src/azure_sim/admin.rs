//! The simulator's own interface under `/_sim/`, for tests in other processes and for people with curl.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{delete, get, patch, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::Pat,
    call::{Answer, Call, at_once, empty, ok},
    entra::{self, EntraClient, EntraMode, MachineIdentity},
    errors::ApiError,
    faults::{FaultRule, HoldAt, Matching},
    jobs::JobRequest,
    named::NamedFault,
    options::PatMode,
    packages::AgentPackage,
    state::Hub,
};

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    org: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Advance {
    advance_ms: u64,
}

/// What changes of a pool; an empty version takes the least version away.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PoolChange {
    auto_update: Option<bool>,
    min_agent_version: Option<String>,
}

#[derive(Deserialize)]
struct Secret {
    secret: String,
}

#[derive(Debug, Deserialize)]
struct Mode {
    mode: PatMode,
}

#[derive(Debug, Deserialize)]
struct NewGate {
    #[serde(default, rename = "match")]
    matching: Matching,
    at: HoldAt,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    version: String,
    file: std::path::PathBuf,
    hash_value: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/health", get(at_once(health)))
        .route("/orgs", post(at_once(add_org)))
        .route("/reset", post(at_once(reset)))
        .route("/pools", get(at_once(pools)).post(at_once(add_pool)))
        .route("/pools/{id}", patch(at_once(change_pool)))
        .route("/pats", post(at_once(add_pat)).delete(at_once(remove_pat)))
        .route("/pat-mode", post(at_once(set_pat_mode)))
        .route("/entra-clients", post(at_once(add_entra_client)))
        .route(
            "/entra/{tenant}/oauth2/v2.0/token",
            post(at_once(entra_token)),
        )
        .route("/entra-mode", post(at_once(set_entra_mode)))
        .route("/entra-requests", get(at_once(entra_requests)))
        .route("/entra-tokens", delete(at_once(expire_entra_tokens)))
        .route("/machine-identities", post(at_once(add_machine_identity)))
        .route(
            "/machine/metadata/identity/oauth2/token",
            get(at_once(machine_token)),
        )
        .route("/jobs", get(at_once(jobs)).post(at_once(queue_job)))
        .route("/jobs/{id}", get(at_once(job)))
        .route("/jobs/{id}/output", get(at_once(job_output)))
        .route("/jobs/{id}/cancel", post(at_once(cancel_job)))
        .route("/agents", get(at_once(agents)))
        .route("/sessions", get(at_once(sessions)))
        .route("/session-posts", get(at_once(session_posts)))
        .route("/journal", get(at_once(journal)))
        .route(
            "/faults",
            get(at_once(faults))
                .post(at_once(add_fault))
                .delete(at_once(clear_faults)),
        )
        .route("/gates", post(at_once(add_gate)))
        .route(
            "/gates/{id}",
            get(at_once(gate)).delete(at_once(release_gate)),
        )
        .route("/clock", get(at_once(clock)).post(at_once(advance)))
        .route(
            "/switches",
            get(at_once(switches)).post(at_once(set_switches)),
        )
        .route("/feature-flags", post(at_once(set_feature_flags)))
        .route("/package", post(at_once(set_package)))
}

fn all(values: impl Iterator<Item = impl Serialize>) -> Answer {
    Ok(ok(Value::Array(values.map(|value| json!(value)).collect())))
}

fn done() -> Answer {
    Ok(empty(StatusCode::NO_CONTENT))
}

fn unknown(what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "NotFound", format!("no such {what}"))
}

fn health(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| Ok(ok(json!({"ok": true, "url": state.public_url}))))
}

fn add_org(hub: &Hub, call: &Call) -> Answer {
    let body: Named = call.json()?;
    hub.with(|state, _| {
        let org = state.add_org(&body.name);
        Ok(ok(json!({"url": state.org_url(org)})))
    })
}

fn pools(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| {
        all(state.pools.values().map(|pool| {
            json!({"id": pool.id, "name": pool.name, "org": state.orgs[pool.org].name,
                   "autoUpdate": pool.auto_update, "minAgentVersion": pool.min_agent_version})
        }))
    })
}

fn add_pool(hub: &Hub, call: &Call) -> Answer {
    let body: Named = call.json()?;
    hub.with(|state, _| {
        let org = body.org.map_or(0, |org| state.add_org(&org));
        Ok(ok(json!({"id": state.add_pool(org, &body.name)})))
    })
}

fn change_pool(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let body: PoolChange = call.json()?;
    hub.with(|state, now| {
        if !state.pools.contains_key(&id) {
            return Err(unknown("pool"));
        }
        state.set_pool_update(id, body.auto_update, body.min_agent_version, now);
        done()
    })
}

fn reset(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| state.reset());
    done()
}

fn remove_pat(hub: &Hub, call: &Call) -> Answer {
    let body: Secret = call.json()?;
    let known = hub.with(|state, _| state.credentials.pats.remove(&body.secret));
    if known.is_some() {
        done()
    } else {
        Err(unknown("personal access token"))
    }
}

fn add_pat(hub: &Hub, call: &Call) -> Answer {
    let pat: Pat = call.json()?;
    hub.with(|state, now| state.add_pat(pat, now));
    done()
}

fn set_pat_mode(hub: &Hub, call: &Call) -> Answer {
    let body: Mode = call.json()?;
    hub.with(|state, _| state.credentials.pat_mode = body.mode);
    done()
}

fn add_entra_client(hub: &Hub, call: &Call) -> Answer {
    let client: EntraClient = call.json()?;
    hub.with(|state, _| state.entra.clients.push(client));
    done()
}

fn entra_token(hub: &Hub, call: &Call) -> Answer {
    Ok(entra::exchange(hub, call.text("tenant"), &call.body))
}

fn set_entra_mode(hub: &Hub, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Body {
        mode: EntraMode,
    }
    let body: Body = call.json()?;
    hub.with(|state, _| state.entra.mode = body.mode);
    done()
}

fn entra_requests(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| all(state.entra.requests.iter()))
}

fn expire_entra_tokens(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| state.expire_entra_tokens());
    done()
}

fn add_machine_identity(hub: &Hub, call: &Call) -> Answer {
    let identity: MachineIdentity = call.json()?;
    hub.with(|state, _| state.entra.machine.push(identity));
    done()
}

fn machine_token(hub: &Hub, call: &Call) -> Answer {
    Ok(entra::machine_token(hub, call))
}

fn jobs(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| all(state.jobs.keys().filter_map(|id| state.job_view(*id))))
}

fn queue_job(hub: &Hub, call: &Call) -> Answer {
    let request: JobRequest = call.json()?;
    hub.with(|state, now| {
        let id = state.queue_job(request, now);
        let id = id.map_err(|error| ApiError::bad_argument(error.to_string()))?;
        Ok(ok(json!(state.job_view(id))))
    })
}

fn job(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let view = hub.with(|state, _| state.job_view(id));
    view.map(|view| ok(json!(view)))
        .ok_or_else(|| unknown("job"))
}

fn job_output(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let output = hub.with(|state, _| state.jobs.get(&id).map(|job| job.output.clone()));
    let output = output.ok_or_else(|| unknown("job"))?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((headers, Body::from(output)).into_response())
}

fn cancel_job(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let known = hub.with(|state, now| state.cancel_job(id, now));
    if known { done() } else { Err(unknown("job")) }
}

fn agents(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| all(state.agents.values().map(|agent| state.agent_view(agent))))
}

fn sessions(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| {
        all(state
            .sessions
            .values()
            .map(|session| state.session_view(session)))
    })
}

fn session_posts(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| all(state.session_posts.iter()))
}

fn journal(hub: &Hub, call: &Call) -> Answer {
    let after = call.query_id("after")?.unwrap_or_default();
    hub.with(|state, _| all(state.journal.entries().filter(|entry| entry.id > after)))
}

fn faults(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| {
        let rules = state.fault_rules().into_iter();
        all(rules.map(|(rule, strikes)| json!({"rule": rule, "strikes": strikes})))
    })
}

fn add_fault(hub: &Hub, call: &Call) -> Answer {
    let body: Value = call.json()?;
    if body.get("named").is_some() {
        let fault: NamedFault = call.json()?;
        let found = hub.with(|state, now| state.bring_about(fault, now));
        return if found {
            done()
        } else {
            Err(unknown("agent or pool"))
        };
    }
    let rule: FaultRule = call.json()?;
    hub.with(|state, now| state.add_fault(rule, now));
    done()
}

fn clear_faults(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| state.clear_faults());
    done()
}

fn add_gate(hub: &Hub, call: &Call) -> Answer {
    let gate: NewGate = call.json()?;
    let id = hub.with(|state, _| state.add_gate(gate.matching, gate.at).id);
    Ok(ok(json!({ "id": id })))
}

fn gate(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let arrived = hub.with(|state, _| state.gate(id).map(|gate| gate.arrived()));
    let arrived = arrived.ok_or_else(|| unknown("gate"))?;
    Ok(ok(json!({"id": id, "arrived": arrived})))
}

fn release_gate(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("id")?;
    let gate = hub.with(|state, _| state.gate(id));
    gate.ok_or_else(|| unknown("gate"))?.release();
    done()
}

fn clock(hub: &Hub, _: &Call) -> Answer {
    hub.with(|_, now| Ok(ok(json!({"now": now.to_string()}))))
}

fn advance(hub: &Hub, call: &Call) -> Answer {
    let body: Advance = call.json()?;
    hub.with(|state, _| state.advance(Duration::from_millis(body.advance_ms)));
    clock(hub, call)
}

fn switches(hub: &Hub, _: &Call) -> Answer {
    hub.with(|state, _| Ok(ok(json!(state.switches))))
}

/// Changes the switches that are named and leaves the others.
fn set_switches(hub: &Hub, call: &Call) -> Answer {
    let changes: serde_json::Map<String, Value> = call.json()?;
    hub.with(|state, _| {
        let mut all = json!(state.switches);
        if let Value::Object(members) = &mut all {
            members.extend(changes);
        }
        let switches = serde_json::from_value(all);
        state.switches = switches.map_err(|error| ApiError::bad_argument(error.to_string()))?;
        Ok(ok(json!(state.switches)))
    })
}

fn set_feature_flags(hub: &Hub, call: &Call) -> Answer {
    let flags: std::collections::BTreeMap<String, bool> = call.json()?;
    hub.with(|state, _| state.feature_flags.extend(flags));
    done()
}

fn set_package(hub: &Hub, call: &Call) -> Answer {
    let body: Package = call.json()?;
    let package = AgentPackage::new(body.version, body.file);
    let mut package = package.map_err(|error| ApiError::bad_argument(error.to_string()))?;
    package.hash_value = body.hash_value.unwrap_or(package.hash_value);
    hub.with(|state, _| state.package = Some(package));
    done()
}
