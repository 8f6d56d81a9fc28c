//! How clients find their way: connection data, resource locations, feature flags, and the bin for telemetry.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    auth::Principal,
    call::{Answer, Call, empty, list, ok},
    errors::ApiError,
    options::Deployment,
    state::{Hub, State},
};

/// Location id, resource, route after `_apis`, area, whether it is in preview.
const LOCATIONS: [(&str, &str, &str, &str, bool); 12] = [
    (
        "00d9565f-ed9c-4a06-9a50-00e7896ccab4",
        "ConnectionData",
        "_apis/{resource}",
        "Location",
        true,
    ),
    (
        "e81700f7-3be2-46de-8624-2eb35882fcaa",
        "ResourceAreas",
        "_apis/{resource}/{areaId}",
        "Location",
        true,
    ),
    (
        "a8c47e17-4d56-4a56-92bb-de7ea7dc65be",
        "pools",
        "_apis/{area}/{resource}/{poolId}",
        TASK,
        false,
    ),
    (
        "e298ef32-5878-4cab-993c-043836571f42",
        "agents",
        "_apis/{area}/pools/{poolId}/{resource}/{agentId}",
        TASK,
        false,
    ),
    (
        "30ba3ada-fedf-4da8-bbb5-dacf2f82e176",
        "usercapabilities",
        "_apis/{area}/pools/{poolId}/agents/{agentId}/{resource}",
        TASK,
        true,
    ),
    (
        "8cc1b02b-ae49-4516-b5ad-4f9b29967c30",
        "updates",
        "_apis/{area}/pools/{poolId}/agents/{agentId}/{resource}",
        TASK,
        true,
    ),
    (
        "134e239e-2df3-4794-a6f6-24f1f19ec8dc",
        "sessions",
        "_apis/{area}/pools/{poolId}/{resource}/{sessionId}",
        TASK,
        true,
    ),
    (
        "c3a054f6-7a8a-49c0-944e-3a8e5d7adfd7",
        "messages",
        "_apis/{area}/pools/{poolId}/{resource}/{messageId}",
        TASK,
        true,
    ),
    (
        "fc825784-c92a-4299-9221-998a02d1b54f",
        "jobrequests",
        "_apis/{area}/pools/{poolId}/{resource}/{requestId}",
        TASK,
        true,
    ),
    (
        "8ffcd551-079c-493a-9c02-54346299d144",
        "packages",
        "_apis/{area}/{resource}/{packageType}/{platform}/{version}",
        TASK,
        true,
    ),
    (
        "3e2b80f8-9e6f-441e-8393-005610692d9c",
        "FeatureFlags",
        "_apis/{area}/{resource}/{name}",
        "FeatureAvailability",
        true,
    ),
    (
        "b5cc35c2-ff2b-491d-a085-24b6e9f396fd",
        "Events",
        "_apis/{area}/{resource}",
        "CustomerIntelligence",
        true,
    ),
];

/// The same for what lies below a project, with the start of the route left out.
const PLAN_LOCATIONS: [(&str, &str, &str); 6] = [
    (
        "83597576-cc2c-453c-bea6-2882ae6a1653",
        "timelines",
        "{resource}/{timelineId}",
    ),
    (
        "8893bc5b-35b2-4be7-83cb-99e683551db4",
        "records",
        "timelines/{timelineId}/{resource}",
    ),
    (
        "858983e4-19bd-4c5e-864c-507b59b58b12",
        "feed",
        "timelines/{timelineId}/records/{recordId}/{resource}",
    ),
    (
        "46f5667d-263a-4684-91b1-dff7fdcf64e2",
        "logs",
        "{resource}/{logId}",
    ),
    (
        "7898f959-9cdf-4096-b29e-7f293031629e",
        "attachments",
        "timelines/{timelineId}/records/{recordId}/{resource}/{type}/{name}",
    ),
    (
        "557624af-b29e-4c20-8ab0-0399d2204f3f",
        "events",
        "{resource}",
    ),
];

const TASK: &str = "distributedtask";
const PLAN_ROUTE: &str = "{scopeIdentifier}/_apis/{area}/hubs/{hubName}/plans/{planId}";

fn location(id: &str, resource: &str, route: &str, area: &str, preview: bool) -> Value {
    json!({
        "id": id, "area": area, "resourceName": resource, "routeTemplate": route,
        "resourceVersion": 1, "minVersion": "1.0", "maxVersion": "7.1",
        "releasedVersion": if preview { "0.0" } else { "7.1" },
    })
}

/// Answers `OPTIONS /_apis`.
pub(super) fn locations(_: &Hub, _: &Call) -> Answer {
    let all = LOCATIONS
        .iter()
        .map(|(id, resource, route, area, preview)| location(id, resource, route, area, *preview));
    let plans = PLAN_LOCATIONS.iter().map(|(id, resource, route)| {
        location(id, resource, &format!("{PLAN_ROUTE}/{route}"), TASK, true)
    });
    Ok(list(all.chain(plans).collect()))
}

/// Answers `GET /_apis/resourceAreas`: none, so that clients stay with the URL they have.
pub(super) fn resource_areas(_: &Hub, _: &Call) -> Answer {
    Ok(list(Vec::new()))
}

/// Answers `GET /_apis/connectionData`.
pub(super) fn connection_data(hub: &Hub, call: &Call) -> Answer {
    hub.with(|state, _| Ok(ok(state.connection_data(call))))
}

impl State {
    fn connection_data(&self, call: &Call) -> Value {
        let (number, name) = match call.principal {
            Principal::Admin(_) => (1, "sim-admin".to_owned()),
            Principal::Agent(agent) => (0x1_0000_0000 + agent, format!("agent {agent}")),
            Principal::Job(request) => (0x2_0000_0000 + request, "job".to_owned()),
        };
        let identity = json!({
            "id": format!("11111111-2222-4333-8444-{number:012x}"),
            "descriptor": format!(
                "Microsoft.TeamFoundation.ServiceIdentity;9a000000-0000-4000-8000-000000000001:\
                 Build:9a000000-0000-4000-8000-{number:012x}"
            ),
            "subjectDescriptor": "svc.c2lt", "providerDisplayName": name, "isActive": true,
            "properties": {}, "resourceVersion": 2, "metaTypeId": 0,
        });
        // A zero owner keeps clients from asking other services.
        let owner = "00000000-0000-0000-0000-000000000000";
        json!({
            "authenticatedUser": identity,
            "authorizedUser": identity,
            "instanceId": self.instance_id(call.org),
            "deploymentId": "9b000000-0000-4000-8000-000000000002",
            "deploymentType": match self.deployment {
                Deployment::Hosted => "hosted",
                Deployment::OnPremises => "onPremises",
            },
            "locationServiceData": {
                "serviceOwner": owner, "defaultAccessMappingMoniker": "PublicAccessMapping",
                "accessMappings": [{
                    "displayName": "Public", "moniker": "PublicAccessMapping",
                    "accessPoint": format!("{}/", self.org_url(call.org)),
                    "serviceOwner": owner, "virtualDirectory": "",
                }],
                "lastChangeId": 1, "lastChangeId64": 1,
                "clientCacheFresh": false, "clientCacheTimeToLive": 3600,
                "serviceDefinitions": [],
            },
            "webApplicationRelativeDirectory": "",
        })
    }

    /// Refuses API versions, if that is switched on.
    pub(super) fn check_version(&self, call: &Call, preview: bool) -> Result<(), ApiError> {
        if self.switches.strict_api_version {
            call.require_version(preview)
        } else {
            Ok(())
        }
    }
}

/// Answers `GET /_apis/FeatureAvailability/FeatureFlags/{name}`.
pub(super) fn feature_flag(hub: &Hub, call: &Call) -> Answer {
    let name = call.text("name");
    let on = hub.with(|state, _| state.feature_flags.get(name).copied().unwrap_or_default());
    let state = if on { "On" } else { "Off" };
    Ok(ok(json!({
        "name": name, "uri": null, "description": null,
        "effectiveState": state, "explicitState": state,
    })))
}

/// Answers `POST /_apis/customerintelligence/events`.
pub(super) fn telemetry(_: &Hub, _: &Call) -> Answer {
    Ok(empty(StatusCode::NO_CONTENT))
}
