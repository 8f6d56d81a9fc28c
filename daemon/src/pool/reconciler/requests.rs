//! Takes operators' commands in, and answers them when what was asked for is so.

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use iap_common::error::chain;

use crate::agent::{AgentState, Drain, Keep};
use crate::incus::Status;

use super::super::apply::ApplyError;
use super::super::command::{Chosen, CommandError, PoolCommand};
use super::super::ledger::Entry;
use super::super::plan;
use super::Reconciler;

/// More unanswered requests than this are refused: the callers have to wait for some first.
const OPEN_REQUESTS: usize = 256;

pub(super) type Reply = oneshot::Sender<Result<(), CommandError>>;

/// Commands that wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Requests {
    drains: Vec<(Vec<String>, Drain, Reply)>,
    keeps: Vec<(String, Keep, Reply)>,
    removals: Vec<(String, Reply)>,
}

impl Requests {
    fn is_full(&self) -> bool {
        self.drains.len() + self.keeps.len() + self.removals.len() >= OPEN_REQUESTS
    }

    /// Answers whoever asked for the removal of an agent that was tried.
    pub(super) fn removed(&mut self, name: &str, error: Option<&ApplyError>) {
        let answer = match error {
            None => Ok(()),
            Some(ApplyError::NotProven(why)) => Err(CommandError::NotProven {
                name: name.to_owned(),
                why,
            }),
            Some(ApplyError::Busy(words)) => Err(CommandError::Registered {
                name: name.to_owned(),
                words: words.clone(),
            }),
            Some(error) if error.is_transient() => {
                Err(CommandError::NotNow(chain(error).to_string()))
            }
            Some(error) => Err(CommandError::Failed(chain(error).to_string())),
        };
        for (_, reply) in self.removals.extract_if(.., |(asked, _)| asked == name) {
            let _ = reply.send(answer.clone());
        }
    }
}

impl Reconciler {
    pub(super) fn take_command(&mut self, command: PoolCommand) {
        let now = Instant::now();
        match command {
            PoolCommand::Drain {
                chosen,
                drain,
                reason,
                asker,
                reply,
            } => {
                let named = matches!(chosen, Chosen::Named(_));
                let names = self.choose(chosen);
                let wish = drain.as_value();
                info!(agents = ?names, wish, reason, uid = asker.uid, "drain requested");
                if let Err(error) = self.admit_drain(&names, drain, named) {
                    let _ = reply.send(Err(error));
                } else {
                    self.requests.drains.push((names, drain, reply));
                }
            }
            PoolCommand::Reap {
                name,
                force,
                asker,
                reply,
            } => {
                info!(agent = %name, force, uid = asker.uid, "removal requested");
                if let Err(error) = self.admit_removal(&name, force, now) {
                    let _ = reply.send(Err(error));
                } else {
                    self.requests.removals.push((name, reply));
                }
            }
            PoolCommand::Keep {
                name,
                keep,
                asker,
                reply,
            } => {
                let until = keep.until.to_string();
                info!(agent = %name, until, uid = asker.uid, "keeping requested");
                match self.admit_keep(&name, keep) {
                    Ok(()) => self.await_keep(name, reply),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            PoolCommand::Release { name, asker, reply } => {
                info!(agent = %name, uid = asker.uid, "release requested");
                match self.admit_release(&name) {
                    Ok(true) => self.requests.removals.push((name, reply)),
                    Ok(false) => self.await_keep(name, reply),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            PoolCommand::Adopt {
                owner,
                ids,
                token,
                asker,
                reply,
            } => {
                info!(owner, ids = ?ids, uid = asker.uid, "adoption requested");
                self.adopt(&owner, &ids, token, reply, now);
            }
            PoolCommand::Retry { asker, reply } => {
                info!(uid = asker.uid, "retry requested");
                self.breaker.retry_now(now);
                self.order.link.retry();
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Answers when the wish that an agent is kept is on its instance.
    fn await_keep(&mut self, name: String, reply: Reply) {
        let wish = self.ledger.get(&name).and_then(|e| e.keep_wish.clone());
        match wish {
            Some(wish) => self.requests.keeps.push((name, wish, reply)),
            None => drop(reply.send(Ok(()))),
        }
    }

    fn choose(&self, chosen: Chosen) -> Vec<String> {
        let outdated_only = match chosen {
            Chosen::Named(names) => return names,
            Chosen::All => false,
            Chosen::Outdated => true,
        };
        let image = Some(self.image.fingerprint.as_str()).filter(|image| !image.is_empty());
        self.ledger
            .iter()
            // What is stopped or in error goes by itself, or cannot be told anything.
            .filter(|(_, entry)| match &entry.instance {
                Some(facts) => facts.status.is_running() || facts.status == Status::Frozen,
                None => !entry.had_instance && !entry.is_gone(),
            })
            // Its time ends by itself, or when somebody releases it.
            .filter(|(_, entry)| !entry.is_kept())
            .filter(|(_, entry)| !outdated_only || plan::is_outdated(entry, &self.spec_hash, image))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn admit_drain(
        &mut self,
        names: &[String],
        drain: Drain,
        named: bool,
    ) -> Result<(), CommandError> {
        self.check_known(names)?;
        let is_kept = |name: &&String| self.ledger.get(name).is_some_and(Entry::is_kept);
        if let Some(name) = names.iter().find(is_kept) {
            return Err(CommandError::Kept(name.clone()));
        }
        for name in names {
            if let Some(entry) = self.ledger.get_mut(name) {
                entry.wish = entry.wish.max(drain);
                entry.retry_at = None;
                // Nothing is left to be told of it, and of all that are without an instance only
                // those that are named are in no doubt.
                if named && drain == Drain::Force && entry.instance.is_none() {
                    entry.remove_wish = Some(true);
                }
            }
        }
        Ok(())
    }

    fn admit_removal(&mut self, name: &str, force: bool, now: Instant) -> Result<(), CommandError> {
        self.check_known(&[name.to_owned()])?;
        let doing = self.in_flight.doing(name);
        let Some(entry) = self.ledger.get_mut(name) else {
            return Ok(());
        };
        if !force && plan::state_of(entry, doing, now) == AgentState::Busy {
            let job = entry
                .registration
                .as_ref()
                .and_then(|facts| facts.job.as_ref());
            let job = job.map(|job| format!("{} {} {}", job.pipeline, job.run, job.job_name));
            let job = job.unwrap_or_default();
            return Err(CommandError::Busy {
                name: name.to_owned(),
                job,
            });
        }
        entry.remove_wish = Some(force);
        entry.retry_at = None;
        Ok(())
    }

    pub(super) fn check_known(&self, names: &[String]) -> Result<(), CommandError> {
        if self.requests.is_full() {
            let why = "too many requests wait for an answer";
            return Err(CommandError::NotNow(why.into()));
        }
        let unknown: Vec<String> = names
            .iter()
            .filter(|name| self.ledger.get(name).is_none_or(Entry::is_gone))
            .cloned()
            .collect();
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(CommandError::NoSuchAgent(unknown))
        }
    }

    /// Answers the drains that are written down on all their agents.
    pub(super) fn answer_requests(&mut self) {
        // Whoever went away waits no more; the wish stands.
        self.requests
            .drains
            .retain(|(_, _, reply)| !reply.is_closed());
        self.requests
            .keeps
            .retain(|(_, _, reply)| !reply.is_closed());
        self.requests
            .removals
            .retain(|(_, reply)| !reply.is_closed());
        let ledger = &self.ledger;
        let is_noted = |name: &String, drain: Drain| {
            let instance = ledger.get(name).and_then(|entry| entry.instance.as_ref());
            instance.is_none_or(|instance| instance.drain >= drain)
        };
        let done = self.requests.drains.extract_if(.., |(names, drain, _)| {
            names.iter().all(|name| is_noted(name, *drain))
        });
        for (_, _, reply) in done {
            let _ = reply.send(Ok(()));
        }
        let keeps = self.requests.keeps.extract_if(.., |(name, wish, _)| {
            let instance = ledger.get(name).and_then(|entry| entry.instance.as_ref());
            instance.is_none_or(|i| i.keep.as_ref().is_some_and(|keep| keep.is_like(wish)))
        });
        for (name, _, reply) in keeps {
            let is_there = ledger.get(&name).is_some_and(|e| e.instance.is_some());
            let _ = reply.send(match is_there {
                true => Ok(()),
                false => Err(CommandError::CannotKeep(name, "gone")),
            });
        }
        let gone = self.requests.removals.extract_if(.., |(name, _)| {
            ledger.get(name).is_none_or(|entry| {
                entry.instance.is_none() && (entry.had_instance || entry.is_gone())
            })
        });
        for (_, reply) in gone {
            let _ = reply.send(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::incus::{CallSite, IncusError};

    use super::*;

    fn answered(message: &str) -> CommandError {
        let mut requests = Requests::default();
        let (reply, mut answer) = oneshot::channel();
        requests.removals.push(("a".into(), reply));
        let error = ApplyError::Incus {
            doing: "cannot stop the instance",
            source: IncusError::Refused {
                call: Box::new(CallSite {
                    kind: "instance_stop",
                    instance: Some("a".into()),
                    method: hyper::Method::PUT,
                    path: "/1.0/instances/a/state".into(),
                }),
                status: 500,
                message: message.into(),
            },
        };
        requests.removed("b", Some(&error));
        assert!(answer.try_recv().is_err());
        requests.removed("a", Some(&error));
        answer.try_recv().unwrap().unwrap_err()
    }

    #[test]
    fn who_asked_for_a_removal_is_told_whether_trying_again_may_help() {
        assert!(matches!(
            answered("daemon is shutting down"),
            CommandError::NotNow(_)
        ));
        assert!(matches!(
            answered("Not a Btrfs subvolume"),
            CommandError::Failed(_)
        ));
    }
}
