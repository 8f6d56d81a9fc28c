//! Several hosts at once: answers that are merged, and what is done on each of them.
//!
//! What a command says while it acts on one of several carries that host's name: as a prefix of
//! lines, as a field of objects. Who says it need not know; [`here`] does.

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use serde::Serialize;

use crate::args::{Format, ListOutputArgs, OutputArgs};
use crate::commands::{Context, Done};
use crate::error::{self, CliError};
use crate::hosts::Host;
use crate::output;
use crate::rows::Row;
use crate::rows::fleet::OnHost;

mod confirm;
mod speech;

pub(crate) use speech::{addressed, here, of_one, only, prefixed};

/// So many hosts are asked at once; each is a process here.
pub(crate) const AT_ONCE: usize = 16;

/// What several hosts answered, and which ones did not, in the order they were named.
pub(crate) struct Answers<T> {
    pub(crate) found: Vec<(String, T)>,
    failed: Vec<(String, CliError)>,
}

/// A host that did not answer, for programs.
#[derive(Serialize)]
struct Failure<'a> {
    host: &'a str,
    error: String,
    exit_code: u8,
}

/// Several things, a host each, for programs.
#[derive(Serialize)]
struct Document<'a, T> {
    hosts: Vec<OnHost<&'a T>>,
    errors: Vec<Failure<'a>>,
}

/// Asks all hosts.
pub(crate) async fn gather<T>(
    context: &Context,
    ask: impl AsyncFn(&Context) -> Result<T, CliError>,
) -> Answers<T> {
    let ask = &ask;
    let named = context.is_named();
    let asked = context
        .each()
        .into_iter()
        .map(|(host, context)| async move {
            // Who is not named among others speaks as usual.
            let answer = if named {
                of_one(&host, ask(&context)).await
            } else {
                ask(&context).await
            };
            (host.name, answer)
        });
    let mut answers = Answers {
        found: Vec::new(),
        failed: Vec::new(),
    };
    let mut all = std::pin::pin!(stream::iter(asked.map(Box::pin)).buffered(AT_ONCE));
    while let Some((name, answer)) = all.next().await {
        match answer {
            Ok(answer) => answers.found.push((name, answer)),
            Err(error) => answers.failed.push((name, error)),
        }
    }
    answers
}

impl<T> Answers<T> {
    /// Returns the answer of the only host.
    pub(crate) fn only(mut self) -> Result<T, CliError> {
        match (self.found.pop(), self.failed.pop()) {
            (Some((_, answer)), _) => Ok(answer),
            (None, Some((_, error))) => Err(error),
            (None, None) => Err(crate::commands::missing()),
        }
    }

    /// Returns how it went: `done`, or the exit code for the hosts that failed.
    fn end(&self, done: Done) -> Done {
        let all = self.found.is_empty();
        let codes = self.failed.iter().map(|(_, error)| error.code());
        exit_code(codes, all).map_or(done, Done::Failed)
    }

    fn report(&self) {
        for (name, error) in &self.failed {
            error::report_of(name, error);
        }
    }

    fn failures(&self) -> Vec<Failure<'_>> {
        let failed = self.failed.iter().map(|(host, error)| Failure {
            host,
            error: iap_common::error::chain(error).to_string(),
            exit_code: error.code(),
        });
        failed.collect()
    }
}

impl<T: Serialize> Answers<T> {
    /// Writes `text` for people, names, or a document for programs, and those that failed.
    pub(crate) fn show(
        &self,
        output: &OutputArgs,
        done: Done,
        text: impl FnOnce(&[(String, T)]) -> String,
        names: impl Fn(&str, &T) -> Vec<String>,
    ) -> Result<Done, CliError> {
        match output.format {
            Format::Table | Format::Wide => {
                let text = text(&self.found);
                output::write(|out| out.write_all(text.as_bytes()))?;
            }
            Format::Name => {
                for (host, answer) in &self.found {
                    let names = names(host, answer);
                    output::write(|out| names.iter().try_for_each(|name| writeln!(out, "{name}")))?;
                }
            }
            Format::Json | Format::Yaml => {
                let found = self.found.iter();
                output.value(&Document {
                    hosts: found.map(|(host, row)| OnHost::bare(host, row)).collect(),
                    errors: self.failures(),
                })?;
                return Ok(self.end(done));
            }
        }
        self.report();
        Ok(self.end(done))
    }
}

impl<R: Row> Answers<Vec<R>> {
    /// Writes the rows of all hosts as one list, as `sort` puts them, and those that failed.
    pub(crate) fn list(
        mut self,
        output: &ListOutputArgs,
        sort: impl FnOnce(&mut Vec<OnHost<R>>),
    ) -> Result<Done, CliError> {
        let mut rows: Vec<OnHost<R>> = Vec::new();
        for (host, found) in &mut self.found {
            rows.extend(found.drain(..).map(|row| OnHost::new(host, row)));
        }
        sort(&mut rows);
        if output.answer.is_data() {
            output.document(&rows, Some(&self.failures()))?;
        } else {
            output.list(&rows)?;
            self.report();
        }
        Ok(self.end(Done::Yes))
    }
}

/// Writes a list, of all hosts when several are meant; `sort` puts their rows into one order.
pub(crate) async fn list_sorted<R: Row>(
    context: &Context,
    output: &ListOutputArgs,
    sort: impl FnOnce(&mut Vec<OnHost<R>>),
    ask: impl AsyncFn(&Context) -> Result<Vec<R>, CliError>,
) -> Result<Done, CliError> {
    if context.is_named() {
        return gather(context, ask).await.list(output, sort);
    }
    output.list(&ask(context).await?)?;
    Ok(Done::Yes)
}

/// Writes a list, of all hosts when several are meant, one after the other.
pub(crate) async fn list<R: Row>(
    context: &Context,
    output: &ListOutputArgs,
    ask: impl AsyncFn(&Context) -> Result<Vec<R>, CliError>,
) -> Result<Done, CliError> {
    list_sorted(context, output, |_| {}, ask).await
}

/// Does something on each host at the same time, after a question when there are several: `what`
/// says what it is.
pub(crate) async fn change(
    context: &Context,
    what: &str,
    yes: bool,
    act: impl AsyncFn(&Context) -> Result<Done, CliError>,
) -> Result<Done, CliError> {
    if context.several().is_some() {
        confirm::confirm(what, &context.each(), yes)?;
    }
    each(context, act).await
}

/// Does something on each host at the same time. Hosts that fail do not keep the others from it.
pub(crate) async fn each(
    context: &Context,
    act: impl AsyncFn(&Context) -> Result<Done, CliError>,
) -> Result<Done, CliError> {
    if context.several().is_none() {
        return act(context).await;
    }
    let act = &act;
    let mut acting: FuturesUnordered<_> = context
        .each()
        .into_iter()
        .map(|(host, context)| {
            Box::pin(async move {
                let done = of_one(&host, act(&context)).await;
                (host, done)
            })
        })
        .collect();
    let count = acting.len();
    let mut codes = Vec::new();
    let mut detached = false;
    while let Some((host, done)) = acting.next().await {
        match done {
            Ok(Done::Yes) => {}
            Ok(Done::Detached) => detached = true,
            Ok(Done::Unhealthy) => codes.push(error::FAILED),
            Ok(Done::Failed(code)) => codes.push(code),
            // Nobody reads any more what is said about any host.
            Err(error @ CliError::Output(_)) => return Err(error),
            Err(error) => {
                tell_failure(&host, &error).await;
                codes.push(error.code());
            }
        }
    }
    let all = codes.len() == count;
    Ok(match exit_code(codes, all) {
        Some(code) => Done::Failed(code),
        None if detached => Done::Detached,
        None => Done::Yes,
    })
}

/// Says an error with the commands of its hints addressed to its host.
async fn tell_failure(host: &Host, error: &CliError) {
    of_one(host, async { error::report_of(&host.name, error) }).await;
}

/// Returns the exit code for hosts that failed: what they have in common, when it was `all` of
/// them or a wait that timed out, else that of a failure.
pub(crate) fn exit_code(codes: impl IntoIterator<Item = u8>, all: bool) -> Option<u8> {
    let mut codes = codes.into_iter();
    let first = codes.next()?;
    let alike = codes.all(|code| code == first);
    let tells = all || first == error::TIMED_OUT;
    Some(if alike && tells { first } else { error::FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_what_the_hosts_have_in_common() {
        assert_eq!(exit_code([], false), None);
        assert_eq!(exit_code([7], false), Some(1));
        assert_eq!(exit_code([7, 7], true), Some(7));
        assert_eq!(exit_code([7, 6], true), Some(1));
        assert_eq!(exit_code([3], false), Some(3));
        assert_eq!(exit_code([3, 7], false), Some(1));
    }
}
