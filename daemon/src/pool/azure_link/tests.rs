use super::*;

const TEN: Duration = Duration::from_secs(10);

#[test]
fn lists_that_tell_nothing_new_follow_each_other_more_slowly() {
    assert_eq!(unhurried(TEN, 0), TEN);
    assert_eq!(unhurried(TEN, CALM_AFTER - 1), TEN);
    assert_eq!(unhurried(TEN, CALM_AFTER), 2 * TEN);
    assert_eq!(unhurried(TEN, u32::MAX), 2 * TEN);
}

#[test]
fn nobody_waits_longer_for_news_than_was_configured_or_half_a_minute() {
    let seconds = Duration::from_secs;
    assert_eq!(unhurried(seconds(20), CALM_AFTER), seconds(30));
    assert_eq!(unhurried(seconds(45), CALM_AFTER), seconds(45));
}

fn list(agents: &[(&str, bool)], waiting: Option<usize>) -> AzureList {
    let agents = agents.iter().map(|(name, online)| {
        let agent = azure::Agent {
            id: 1,
            name: (*name).to_owned(),
            version: String::new(),
            enabled: true,
            online: *online,
            assigned: None,
            last_completed: None,
            capabilities: BTreeMap::new(),
            created_on: None,
            status_changed_on: None,
        };
        (agent.name.clone(), agent)
    });
    AzureList {
        began: Instant::now(),
        at: Timestamp::now(),
        agents: Arc::new(agents.collect()),
        waiting_jobs: waiting.map(|jobs| vec![JobRequest::default(); jobs].into()),
    }
}

#[tokio::test]
async fn a_list_is_news_when_agents_changed_or_jobs_wait() {
    let old = list(&[("a", true)], Some(0));
    assert!(list(&[("a", true)], Some(0)).says_the_same_as(&old));
    assert!(list(&[("a", true)], None).says_the_same_as(&old));
    assert!(!list(&[("a", false)], Some(0)).says_the_same_as(&old));
    assert!(!list(&[("a", true), ("b", true)], Some(0)).says_the_same_as(&old));
    assert!(!list(&[("a", true)], Some(1)).says_the_same_as(&old));
    assert!(!list(&[("a", true)], Some(1)).says_the_same_as(&list(&[("a", true)], Some(1))));
}
