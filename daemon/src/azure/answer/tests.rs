use iap_common::error::chain;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::super::auth::{Credential, TokenSource, Wires};
use super::super::types::{Agent, JobRequest, Package};
use super::*;

const PAT: &str = "s3cretpatvalue0123456789";
const PATH: &str = "/contoso/_apis/distributedtask/pools/11/agents";

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect(),
        body: body.as_bytes().to_vec(),
        pause: None,
    }
}

fn json_answer(status: u16, body: &str) -> Answer {
    answer(
        status,
        &[(
            "content-type",
            "application/json; charset=utf-8; api-version=6.0",
        )],
        body,
    )
}

fn token() -> std::sync::Arc<Token> {
    let pat = Credential::Pat(PAT.into());
    let observer = std::sync::Arc::new(|_| ());
    match TokenSource::new(pat, Wires::default(), observer).unwrap() {
        TokenSource::Fixed(token) => token,
        _ => unreachable!(),
    }
}

fn error(answer: &Answer) -> AzureError {
    assert!(!is_success(answer));
    refusal(Operation::ListAgents, PATH.into(), answer, &token())
}

fn read_list<T: DeserializeOwned>(body: &str) -> Result<Vec<T>, AzureError> {
    let answer = json_answer(200, body);
    assert!(is_success(&answer));
    list(Operation::ListAgents, answer)
}

#[test]
fn sign_in_pages_and_challenges_are_rejections_whatever_their_status() {
    let html = ("content-type", "text/html; charset=utf-8");
    let page = "<html>Sign in</html>";
    let service_error = "TF400813%3A+The+user+%27%27+is+not+authorized";
    let cases = [
        (
            answer(203, &[html], page),
            "HTTP 203 with an HTML page: the token is expired or revoked",
        ),
        (
            answer(203, &[], ""),
            "HTTP 203: the token is expired or revoked",
        ),
        (
            answer(200, &[html], page),
            "HTTP 200 with an HTML page in place of JSON: the token is expired or revoked, or a \
             proxy answered",
        ),
        (
            answer(200, &[], page),
            "HTTP 200 with something in place of JSON: the token is expired or revoked, or a \
             proxy answered",
        ),
        (
            answer(
                302,
                &[("location", "https://login.example.com/signin?secret=1")],
                "",
            ),
            "HTTP 302 to login.example.com: the token is expired or revoked",
        ),
        (
            answer(302, &[("location", "/_signin?x=1")], ""),
            "HTTP 302 to a sign-in page: the token is expired or revoked",
        ),
        (
            answer(401, &[], ""),
            "HTTP 401: the token is unknown, expired or revoked",
        ),
        (
            answer(401, &[("x-tfs-serviceerror", service_error)], ""),
            "HTTP 401: TF400813: The user '' is not authorized",
        ),
    ];
    for (answer, reason) in cases {
        let error = error(&answer);
        assert!(error.is_rejected() && !error.is_transient() && !error.is_not_found());
        assert_eq!(
            error.to_string(),
            format!("cannot list the pool's agents: Azure rejected the credential: {reason}")
        );
    }
}

#[test]
fn a_redirect_that_keeps_the_path_is_a_move_and_no_rejection() {
    for status in [301, 302, 307, 308] {
        let to = format!("https://azure.example.com:8443{PATH}");
        let error = error(&answer(status, &[("location", &to)], ""));
        assert!(!error.is_rejected(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("https://azure.example.com:8443 now"),
            "{text}"
        );
    }
}

#[test]
fn a_missing_right_is_named() {
    let body = r#"{"message":"sim-reader needs Manage permissions for pool linux to perform the action.",
        "typeKey":"AccessDeniedException"}"#;
    let error = error(&json_answer(403, body));
    assert!(error.is_rejected());
    let text = error.to_string();
    assert!(
        text.contains("needs Manage permissions for pool linux"),
        "{text}"
    );
    assert!(text.contains("Agent Pools (read & manage)"), "{text}");
    assert!(text.contains("administrator of the agent pool"), "{text}");
}

#[test]
fn refusals_keep_azures_class_and_words() {
    let body = "\u{feff}{\"$id\":\"1\",\"innerException\":null,\"message\":\"VS403: agent id 7 does \
                not exist\",\"typeName\":\"X, Y\",\"typeKey\":\"TaskAgentNotFoundException\",\
                \"errorCode\":0,\"eventId\":3000}";
    let error = error(&json_answer(404, body));
    assert!(error.is_not_found() && !error.is_transient() && !error.is_rejected());
    assert_eq!(error.type_key(), "TaskAgentNotFoundException");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot list the pool's agents: HTTP 404 TaskAgentNotFoundException: VS403: agent id 7 \
             does not exist ({PATH})"
        )
    );
}

#[test]
fn a_404_that_is_not_about_agents_is_not_their_absence() {
    let html = answer(
        404,
        &[("content-type", "text/html")],
        "<html>no such page</html>",
    );
    let wrong_path = json_answer(
        404,
        r#"{"message":"no controller","typeKey":"HttpException"}"#,
    );
    for answer in [html, wrong_path] {
        assert!(!error(&answer).is_not_found());
    }
}

#[test]
fn statuses_answer_what_policy_asks() {
    for (status, transient, conflict) in [
        (400, false, false),
        (404, false, false),
        (408, true, false),
        (409, false, true),
        (429, true, false),
        (500, true, false),
        (503, true, false),
    ] {
        let error = error(&json_answer(status, "{}"));
        assert_eq!(error.is_transient(), transient, "{status}");
        assert_eq!(error.is_conflict(), conflict, "{status}");
        assert!(!error.is_rejected(), "{status}");
    }
    let taken = json_answer(400, r#"{"typeKey":"TaskAgentExistsException"}"#);
    assert!(error(&taken).is_conflict());
}

#[test]
fn an_error_never_quotes_the_token_and_stays_one_short_line() {
    let quoted = format!("token {PAT} is\nbad ");
    let body = json!({"message": quoted.repeat(100), "typeKey": PAT}).to_string();
    for answer in [
        json_answer(401, &body),
        json_answer(403, &body),
        json_answer(500, &body),
        answer(500, &[("content-type", "text/plain")], &quoted.repeat(1000)),
        answer(401, &[("x-tfs-serviceerror", &format!("bad+{PAT}"))], ""),
    ] {
        let error = error(&answer);
        let text = format!("{error:?} {} {error}", chain(&error));
        assert!(!text.contains(PAT), "{text}");
        assert!(error.to_string().chars().count() < 700);
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn an_empty_success_is_a_success() {
    assert!(is_success(&answer(204, &[], "")));
    assert!(is_success(&answer(
        200,
        &[("content-type", "text/html")],
        ""
    )));
}

#[test]
fn half_an_object_is_malformed_and_worth_another_try() {
    let error = read_list::<super::wire::TaskAgent>(r#"{"count":1,"value":[{"id":4"#)
        .err()
        .unwrap();
    assert!(matches!(error, AzureError::Malformed { .. }));
    assert!(error.is_transient());
}

#[test]
fn an_incomplete_list_is_an_error() {
    let short = r#"{"count":2,"value":[{"id":1,"name":"a"}]}"#;
    let error = read_list::<super::wire::TaskAgent>(short).err().unwrap();
    assert!(
        error.to_string().contains("counts 2 and lists 1"),
        "{error}"
    );
    let nameless = r#"{"count":1,"value":[{"id":1}]}"#;
    assert!(read_list::<super::wire::TaskAgent>(nameless).is_err());
    let mut paged = json_answer(200, r#"{"count":1,"value":[{"id":1,"name":"a"}]}"#);
    paged
        .headers
        .insert("x-ms-continuationtoken", HeaderValue::from_static("2"));
    let error = list::<super::wire::TaskAgent>(Operation::ListAgents, paged)
        .err()
        .unwrap();
    assert!(error.to_string().contains("more to come"), "{error}");
}

#[test]
fn an_agent_with_work_is_read_whole() {
    let body = r#"{"count":1,"value":[{"id":42,"name":"stove-01","version":"4.275.0",
        "osDescription":"Debian GNU/Linux 12","enabled":true,"status":"online",
        "provisioningState":"Provisioned","maxParallelism":1,
        "createdOn":"2026-11-23T10:00:00.1234567Z","statusChangedOn":"2026-11-23T10:00:06.5Z",
        "_links":{"self":{"href":"http://127.0.0.1/x"}},"unknown":[1,{"a":null}],
        "systemCapabilities":{"Agent.OS":"Linux","tier":"system","odd":null},
        "userCapabilities":{"tier":"user","iap.owner":"o1"},
        "assignedRequest":{"requestId":4711,"queueTime":"2026-11-23T10:01:00Z",
            "assignTime":"2026-11-23T10:01:02Z","receiveTime":"2026-11-23T10:01:03Z",
            "jobId":"7c1d2e3f-0000-4000-8000-00000000abcd","jobName":"build","planType":"Build",
            "demands":["stove","Agent.Version -gtVersion 2.182.1"],
            "reservedAgent":{"id":42,"name":"stove-01"},
            "definition":{"id":7,"name":"ci"},"owner":{"id":815,"name":"20261123.1"}}}]}"#;
    let agent: Agent = read_list::<super::wire::TaskAgent>(body)
        .unwrap()
        .remove(0)
        .into();
    assert_eq!(
        (agent.id, agent.name.as_str(), agent.version.as_str()),
        (42, "stove-01", "4.275.0")
    );
    assert!(agent.enabled && agent.online);
    assert_eq!(
        agent.created_on.unwrap().to_string(),
        "2026-11-23T10:00:00.1234567Z"
    );
    let capabilities: Vec<_> = agent
        .capabilities
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        capabilities,
        ["Agent.OS=Linux", "iap.owner=o1", "tier=user"]
    );
    let job = agent.assigned.unwrap();
    assert_eq!((job.request_id, job.agent_id), (4711, Some(42)));
    assert_eq!(
        (
            job.job_name.as_str(),
            job.pipeline.as_str(),
            job.run.as_str()
        ),
        ("build", "ci", "20261123.1")
    );
    assert_eq!(job.demands, ["stove", "Agent.Version -gtVersion 2.182.1"]);
    assert!(job.receive_time.is_some() && job.finish_time.is_none() && job.result.is_none());
}

#[test]
fn enumerations_may_be_numbers_and_members_null() {
    let body = r#"{"count":2,"value":[
        {"id":1,"name":"a","status":2,"enabled":null,"assignedRequest":null,"systemCapabilities":null,
         "createdOn":"0001-01-01T00:00:00","statusChangedOn":"2026-11-23T10:00:06.5",
         "lastCompletedRequest":{"requestId":1,"result":2}},
        {"id":2,"name":"b","status":1,"enabled":false,"createdOn":"yesterday"}]}"#;
    let agents = read_list::<super::wire::TaskAgent>(body).unwrap();
    let [first, second]: [Agent; 2] = agents
        .into_iter()
        .map(Agent::from)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert!(first.online && first.enabled && first.assigned.is_none());
    assert_eq!(first.created_on, None);
    assert_eq!(
        first.status_changed_on.unwrap().to_string(),
        "2026-11-23T10:00:06.5Z"
    );
    assert_eq!(first.last_completed.unwrap().result.unwrap(), "failed");
    assert!(!second.online && !second.enabled && second.created_on.is_none());
}

#[test]
fn a_recorded_style_job_request_is_read() {
    let body = r#"{"count":1,"value":[{"requestId":4711,"queueTime":"2026-11-23T10:01:00Z",
        "serviceOwner":"00025394-6065-48ca-87d9-7f5672854ef7","jobName":"build",
        "matchesAllAgentsInPool":false,"matchedAgents":[{"id":40,"name":"p","status":"offline"}],
        "definition":{"_links":{"web":{"href":"..."}},"id":7,"name":"ci"},"owner":{"_links":{},"id":815},
        "data":{"ParallelismTag":"Private"},"priority":0,"result":null,"demands":null}]}"#;
    let jobs = read_list::<super::wire::TaskAgentJobRequest>(body).unwrap();
    let job = JobRequest::from(jobs.into_iter().next().unwrap());
    assert_eq!(
        (job.request_id, job.pipeline.as_str(), job.run.as_str()),
        (4711, "ci", "")
    );
    assert!(job.result.is_none() && job.demands.is_empty() && job.agent_id.is_none());
}

#[test]
fn a_package_names_its_checksum_only_if_it_is_one() {
    let package = |hash: &str| {
        let body = json!({"type": "agent", "platform": "linux-x64",
            "version": {"major": 4, "minor": 275, "patch": 0},
            "downloadUrl": "https://download.example.com/a.tar.gz", "hashValue": hash,
            "filename": "a.tar.gz"});
        let answer = json_answer(200, &body.to_string());
        Package::from(object::<wire::PackageMetadata>(Operation::FindPackage, answer).unwrap())
    };
    let hash = "AB".repeat(32);
    assert_eq!(package(&hash).version, "4.275.0");
    assert_eq!(package(&hash).sha256.unwrap(), hash.to_lowercase());
    assert_eq!(package("").sha256, None);
    assert_eq!(package("../../etc").sha256, None);
}

#[test]
fn a_property_is_a_value_or_a_typed_value() {
    let url = |property: &str| {
        let body = format!(r#"{{"id":42,"properties":{property}}}"#);
        object::<wire::Registered>(Operation::CreateAgent, json_answer(200, &body))
            .unwrap()
            .server_url()
    };
    assert_eq!(
        url(r#"{"ServerUrl":"https://a/b/"}"#).unwrap(),
        "https://a/b/"
    );
    assert_eq!(
        url(r#"{"ServerUrl":{"$type":"System.String","$value":"https://a/b/"}}"#).unwrap(),
        "https://a/b/"
    );
    assert_eq!(url(r#"{"ServerUrl":""}"#), None);
    assert_eq!(url("{}"), None);
    assert_eq!(url("null"), None);
}
