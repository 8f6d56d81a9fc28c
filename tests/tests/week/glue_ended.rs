//! How actions ended, taken in as `pool/reconciler/ended.rs` and `keep.rs` do.

use std::time::Duration;

use tokio::time::Instant;

use iapd::agent::Drain;
use iapd::pool::ledger::Verdict;
use iapd::pool::plan::{ReapReason, Staying};

use super::glue::Daemon;
use super::glue_act::Ended;
use super::glue_launch::{NotLaunched, Why};
use super::invariants::Invariants;

impl Daemon {
    pub(super) fn ended(&mut self, name: &str, ended: Ended, checks: &mut Invariants) {
        let now = self.now();
        let began = self.in_flight.end(name).unwrap_or(now);
        self.world
            .borrow_mut()
            .tell(|| format!("iapd: {name} {}", words(&ended)));
        checks.ended(&mut self.world.borrow_mut(), name, &ended);
        match ended {
            Ended::Launch(Ok(id)) => {
                self.ledger.entry(name, now).launched(id, began, now);
                let world = std::rc::Rc::clone(&self.world);
                self.poller.hurry(&world);
            }
            Ended::Launch(Err(NotLaunched {
                why: Why::Cancelled,
                ..
            })) => {}
            Ended::Launch(Err(failed)) => {
                let text = format!("{:?}", failed.why);
                let id = failed.azure_agent_id;
                let its_fault = failed.created && matches!(failed.why, Why::Start | Why::Vanished);
                let entry = self.ledger.entry(name, now);
                entry.not_launched(failed.created, id, its_fault, text.clone(), now);
                self.forget_image();
                self.breaker.failed(text, began, now, None);
            }
            Ended::Noted(result) => match result {
                Ok(()) => {
                    if let Some(entry) = self.ledger.get_mut(name) {
                        entry.worked();
                    }
                }
                Err(why) => self.failed(name, &why, now),
            },
            Ended::Doorbell(result) => {
                self.ledger.entry(name, now).answered = true;
                if let Ok(Some(ending)) = result {
                    let verdict = self.ledger.entry(name, now).told(ending);
                    self.judge(verdict, began, now);
                }
            }
            Ended::Heard(ending, job) => {
                let entry = self.ledger.entry(name, now);
                entry.heard = true;
                if let Some(job) = job {
                    entry.past.job = Some(job);
                }
                match ending {
                    Some(ending) => {
                        let verdict = entry.told(ending);
                        self.judge(verdict, began, now);
                    }
                    None => entry.answered = true,
                }
            }
            Ended::Kept(keep, staying, Ok(ending)) => {
                let entry = self.ledger.entry(name, now);
                entry.worked();
                if keep.has_ended() && staying != Staying::Noted {
                    let verdict = entry.kept_as(staying, ending);
                    self.judge(verdict, began, now);
                    if matches!(staying, Staying::InsteadOf(ReapReason::NeverOnline, _)) {
                        self.breaker.failed("never online".into(), began, now, None);
                    }
                }
            }
            Ended::Kept(_, staying, Err(why)) => {
                self.ledger.entry(name, now).not_kept(staying);
                self.failed_or_not_proven(name, &why, now);
            }
            Ended::Left(Ok(left)) => self.ledger.entry(name, now).left(left, now),
            Ended::Left(Err(why)) => {
                self.failed(name, &why, now);
                if why == Why::Stop {
                    self.ledger.entry(name, now).leaves += 1;
                }
            }
            Ended::Removed(reason, _, Ok(())) => {
                self.ledger.entry(name, now).removed(reason, String::new());
                if reason == ReapReason::NeverOnline {
                    self.breaker.failed("never online".into(), began, now, None);
                }
            }
            Ended::Removed(_, disables, Err(why)) => {
                if disables {
                    self.ledger.entry(name, now).disabled_for_nothing();
                }
                self.failed_or_not_proven(name, &why, now);
                if !matches!(why, Why::NotProven(_)) {
                    let refused = matches!(why, Why::Incus(_));
                    self.ledger.entry(name, now).not_removed(refused);
                }
            }
            Ended::Deregistered(Ok(job)) => {
                let entry = self.ledger.entry(name, now);
                entry.worked();
                entry.deregistered(now);
                if job.is_some() {
                    entry.past.job = job;
                }
            }
            Ended::Deregistered(Err(why)) => self.failed(name, &why, now),
        }
        self.changed();
    }

    fn judge(&mut self, verdict: Verdict, began: Instant, now: Instant) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Worked(began) => self.breaker.try_succeeded(began),
            Verdict::Failed(code) => {
                let text = format!("exit code {code}");
                self.breaker.failed(text, began, now, None);
            }
        }
    }

    fn failed(&mut self, name: &str, why: &Why, now: Instant) {
        self.ledger.entry(name, now).failed(format!("{why:?}"), now);
    }

    fn failed_or_not_proven(&mut self, name: &str, why: &Why, now: Instant) {
        match why {
            Why::NotProven(words) => {
                let pause = Duration::from_millis(self.wanted.borrow().reaper_interval);
                self.ledger.entry(name, now).not_proven(words, pause, now);
            }
            why => self.failed(name, why, now),
        }
    }

    /// An operator wishes that agents go.
    pub(super) fn drain(&mut self, name: &str, drain: Drain) -> bool {
        match self.ledger.get_mut(name).filter(|entry| !entry.is_kept()) {
            Some(entry) => {
                entry.wish = entry.wish.max(drain);
                entry.retry_at = None;
                true
            }
            None => false,
        }
    }
}

fn words(ended: &Ended) -> String {
    match ended {
        Ended::Kept(_, staying, result) => format!("kept {staying:?}: {result:?}"),
        other => format!("{other:?}"),
    }
}
