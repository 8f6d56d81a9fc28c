use std::cell::RefCell;

use reqwest::StatusCode;

use super::*;
use crate::azure::error::Operation;

const HOUR: Duration = Duration::from_secs(3600);

/// Hands out `token 1`, `token 2` and so on, or fails while it is told to.
#[derive(Default)]
struct Source {
    wishes: RefCell<Vec<Wish>>,
    failing: RefCell<Option<StatusCode>>,
    took: Duration,
}

impl Source {
    async fn fetch(&self, wish: Wish) -> Result<Fresh, AzureError> {
        self.wishes.borrow_mut().push(wish);
        let number = self.count();
        tokio::time::sleep(self.took).await;
        if let Some(status) = *self.failing.borrow() {
            return Err(AzureError::Rejected {
                operation: Operation::GetToken,
                status,
                reason: "AADSTS7000222: expired".into(),
            });
        }
        Ok(Fresh {
            token: Token::of_bearer(&format!("token{number}")).unwrap(),
            life: HOUR,
        })
    }

    fn count(&self) -> usize {
        self.wishes.borrow().len()
    }

    fn fail(&self, fails: bool) {
        *self.failing.borrow_mut() = fails.then_some(StatusCode::UNAUTHORIZED);
    }

    async fn token(&self, lease: &Lease) -> Result<String, AzureError> {
        let token = lease.current(|wish| self.fetch(wish)).await?;
        let header = token.header();
        Ok(header.to_str().unwrap().replace("Bearer ", ""))
    }
}

async fn wait(minutes: u64) {
    tokio::time::advance(Duration::from_secs(60 * minutes)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_held_and_renewed_before_its_end() {
    let (lease, source) = (Lease::default(), Source::default());
    assert_eq!(lease.expires_at(), None);
    for _ in 0..3 {
        assert_eq!(source.token(&lease).await.unwrap(), "token1");
    }
    let left = lease.expires_at().unwrap().duration_since(Timestamp::now());
    assert!((3590..3610).contains(&left.as_secs()));
    wait(42).await;
    assert_eq!(source.token(&lease).await.unwrap(), "token1");
    wait(6).await;
    assert_eq!(source.token(&lease).await.unwrap(), "token2");
    assert_eq!(source.token(&lease).await.unwrap(), "token2");
    assert_eq!(source.count(), 2);
    assert_eq!(source.wishes.borrow()[0].within, DEADLINE);
    assert_eq!(source.wishes.borrow()[1].within, EARLY_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_failing_renewal_keeps_the_token_until_its_end_and_is_tried_again() {
    let (lease, source) = (Lease::default(), Source::default());
    source.token(&lease).await.unwrap();
    wait(50).await;
    source.fail(true);
    for _ in 0..5 {
        assert_eq!(source.token(&lease).await.unwrap(), "token1");
    }
    assert_eq!(source.count(), 2, "the next try is put off");
    assert!(lease.rejected_at().is_some());
    wait(1).await;
    assert_eq!(source.token(&lease).await.unwrap(), "token1");
    assert_eq!(source.count(), 3);
    wait(10).await;
    let error = source.token(&lease).await.unwrap_err();
    assert!(error.is_rejected(), "{error}");
    assert!(error.to_string().contains("AADSTS7000222"), "{error}");
    source.fail(false);
    wait(1).await;
    assert_eq!(source.token(&lease).await.unwrap(), "token5");
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_at_once_share_one_fetch_and_one_failure() {
    let lease = Lease::default();
    let source = Source {
        took: Duration::from_secs(2),
        ..Source::default()
    };
    let three = || async {
        tokio::join!(
            source.token(&lease),
            source.token(&lease),
            source.token(&lease)
        )
    };
    source.fail(true);
    let (a, b, c) = three().await;
    assert!(a.is_err() && b.is_err() && c.is_err());
    assert_eq!(source.count(), 1);
    source.fail(false);
    wait(1).await;
    let (a, b, c) = three().await;
    assert_eq!(
        [a.unwrap(), b.unwrap(), c.unwrap()],
        ["token2", "token2", "token2"]
    );
    // While one renews, the others go on with the old token.
    wait(50).await;
    let (a, b, c) = three().await;
    assert_eq!(
        [a.unwrap(), b.unwrap(), c.unwrap()],
        ["token3", "token2", "token2"]
    );
    assert_eq!(source.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_the_fetch_to_the_next() {
    let lease = Lease::default();
    let source = Source {
        took: Duration::from_secs(20),
        ..Source::default()
    };
    let hasty = tokio::time::timeout(Duration::from_secs(1), source.token(&lease));
    assert!(hasty.await.is_err());
    assert_eq!(source.token(&lease).await.unwrap(), "token2");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_unless_it_is_young() {
    let (lease, source) = (Lease::default(), Source::default());
    source.token(&lease).await.unwrap();
    lease.forget();
    assert_eq!(source.token(&lease).await.unwrap(), "token1");
    wait(1).await;
    lease.forget();
    assert_eq!(source.token(&lease).await.unwrap(), "token2");
    let wishes = source.wishes.borrow();
    assert_eq!([wishes[0].anew, wishes[1].anew], [false, true]);
}
