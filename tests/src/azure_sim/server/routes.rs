//! Which function answers what, below an organisation.

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    routing::{delete, get, options, post, put},
};

use crate::azure_sim::{
    agents,
    call::{at_once, no_route},
    location, messages, packages, plans, pools, requests, sessions,
    state::Hub,
};

/// The fixed segments of all routes; the service does not mind their letter case.
const WORDS: [&str; 24] = [
    "_apis",
    "connectionData",
    "resourceAreas",
    "FeatureAvailability",
    "FeatureFlags",
    "customerintelligence",
    "distributedtask",
    "pools",
    "agents",
    "usercapabilities",
    "updates",
    "sessions",
    "messages",
    "jobrequests",
    "packages",
    "agent",
    "hubs",
    "plans",
    "events",
    "logs",
    "timelines",
    "records",
    "feed",
    "attachments",
];

/// Returns the URI below an organisation, fixed segments spelled as in the routes.
pub(super) fn inner_uri(path: &str, query: Option<&str>) -> Option<Uri> {
    let spelled = path.split('/').map(|segment| {
        let word = WORDS
            .into_iter()
            .find(|word| word.eq_ignore_ascii_case(segment));
        word.unwrap_or(segment)
    });
    let path = spelled.collect::<Vec<_>>().join("/");
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    let text = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    text.parse().ok()
}

pub(super) fn service_routes() -> Router<Arc<Hub>> {
    let pool = "/_apis/distributedtask/pools/{pool}";
    let plan = "/{scope}/_apis/distributedtask/hubs/{hub}/plans/{plan}";
    let package = "/_apis/distributedtask/packages/agent/{platform}";
    let below = |start: &str, rest: &str| format!("{start}{rest}");
    let record = "/timelines/{timeline}/records/{record}";
    Router::new()
        .route("/_apis", options(at_once(location::locations)))
        .route("/_apis/", options(at_once(location::locations)))
        .route(
            "/_apis/connectionData",
            get(at_once(location::connection_data)),
        )
        .route(
            "/_apis/resourceAreas",
            get(at_once(location::resource_areas)),
        )
        .route(
            "/_apis/FeatureAvailability/FeatureFlags/{name}",
            get(at_once(location::feature_flag)),
        )
        .route(
            "/_apis/customerintelligence/events",
            post(at_once(location::telemetry)),
        )
        .route("/_apis/distributedtask/pools", get(at_once(pools::get_all)))
        .route(pool, get(at_once(pools::get)).patch(at_once(pools::change)))
        .route(
            &below(pool, "/agents"),
            get(at_once(agents::get_all)).post(at_once(agents::create)),
        )
        .route(
            &below(pool, "/agents/{agent}"),
            get(at_once(agents::get))
                .put(at_once(agents::replace))
                .patch(at_once(agents::change))
                .delete(at_once(agents::delete)),
        )
        .route(
            &below(pool, "/agents/{agent}/usercapabilities"),
            put(at_once(agents::set_user_capabilities)),
        )
        .route(
            &below(pool, "/agents/{agent}/updates"),
            put(at_once(agents::report_update)),
        )
        .route(&below(pool, "/sessions"), post(at_once(sessions::create)))
        .route(
            &below(pool, "/sessions/{session}"),
            delete(at_once(sessions::delete)),
        )
        .route(&below(pool, "/messages"), get(messages::poll))
        .route(
            &below(pool, "/messages/{message}"),
            delete(at_once(messages::delete)),
        )
        .route(
            &below(pool, "/jobrequests"),
            get(at_once(requests::get_all)),
        )
        .route(
            &below(pool, "/jobrequests/{request}"),
            get(at_once(requests::get))
                .patch(at_once(requests::change))
                .delete(at_once(requests::delete)),
        )
        .route(package, get(at_once(packages::get_all)))
        .route(&below(package, "/{version}"), get(at_once(packages::get)))
        .route(&below(plan, "/events"), post(at_once(plans::event)))
        .route(&below(plan, "/logs"), post(at_once(plans::create_log)))
        .route(
            &below(plan, "/logs/{log}"),
            post(at_once(plans::append_log)),
        )
        .route(
            &below(plan, "/timelines/{timeline}"),
            get(at_once(plans::timeline)),
        )
        .route(
            &below(plan, "/timelines/{timeline}/records"),
            get(at_once(plans::records)).patch(at_once(plans::records)),
        )
        .route(
            &below(plan, &below(record, "/feed")),
            post(at_once(plans::swallow)),
        )
        .route(
            &below(plan, &below(record, "/attachments/{type}/{name}")),
            put(at_once(plans::swallow)),
        )
        .fallback(no_route)
}
