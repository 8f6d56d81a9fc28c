//! What is outside of iapd: Incus, Azure, guests, people, and what is wrong with them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::clock::MINUTE;
use super::model_azure::Azure;
use super::model_incus::Incus;

/// Something that will happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A task goes on.
    Task(u64),
    /// A life of iapd begins.
    Begins(u64),
    /// iapd looks again, if this is its life and its alarm still stands.
    Alarm(u64, u64),
    /// The poller asks again, if this is its life and its alarm still stands.
    Poll(u64, u64),
    /// Incus told of something.
    Wake,
    /// A create operation ends.
    CreateEnds(String),
    /// A guest's boot ends.
    Boots(String),
    /// A guest vanishes without a word.
    Vanishes(String),
    /// A listener asks Azure for a session.
    Connects(String),
    /// A listener gives up.
    GivesUp(String),
    /// A guest was shown `Ready` long enough.
    HookEnds(String),
    /// A guest's power is off.
    PowersOff(String),
    /// Incus deletes an ephemeral instance that stopped.
    Sweeps(String),
    /// A job ends.
    JobEnds(String, u64),
    /// A job's message reaches its agent.
    Delivers(u64, u32),
    /// A job's lock is due.
    LockDue(u64, u32),
    /// A session that nobody polls lapses.
    SessionDue(i64, u32),
    /// Azure looks for idle agents.
    Assigns,
    /// Azure assigns a job that it had begun to assign before.
    Ambush(i64),
    /// A job is queued.
    JobArrives,
    /// Something goes wrong.
    Mishap,
    /// Something that went wrong ends.
    MishapEnds(Mishap, String),
    /// Somebody wants something.
    Operator,
    /// A request that was given up takes effect all the same.
    Late(Late),
}

/// What takes effect although its caller has given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Late {
    Create(super::model_incus::Order),
    Stop(String),
    Start(String, i64),
    Register(String),
}

/// What can be wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mishap {
    AzureDown,
    AzureWantsPeace,
    AzureLags,
    IncusDown,
    CallsGetLost,
    CreatesFail,
    CreatesAreSlow,
    GuestsVanish,
    NeverOnline,
    ListenersFail,
    DeletesAreBusy,
    RefusesRemoval,
    ProbesFail,
    Frozen,
    LostContact,
}

impl Mishap {
    pub(super) const ALL: [Self; 15] = [
        Self::AzureDown,
        Self::AzureWantsPeace,
        Self::AzureLags,
        Self::IncusDown,
        Self::CallsGetLost,
        Self::CreatesFail,
        Self::CreatesAreSlow,
        Self::GuestsVanish,
        Self::NeverOnline,
        Self::ListenersFail,
        Self::DeletesAreBusy,
        Self::RefusesRemoval,
        Self::ProbesFail,
        Self::Frozen,
        Self::LostContact,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::AzureDown => "Azure down",
            Self::AzureWantsPeace => "Azure wants to be left alone",
            Self::AzureLags => "Azure's list lags",
            Self::IncusDown => "Incus down",
            Self::CallsGetLost => "calls get lost",
            Self::CreatesFail => "creates fail",
            Self::CreatesAreSlow => "creates are slow",
            Self::GuestsVanish => "guests vanish at boot",
            Self::NeverOnline => "agents never come online",
            Self::ListenersFail => "listeners give up",
            Self::DeletesAreBusy => "registrations cannot be deleted",
            Self::RefusesRemoval => "an instance cannot be deleted",
            Self::ProbesFail => "probes fail",
            Self::Frozen => "an instance is frozen",
            Self::LostContact => "a guest loses contact",
        }
    }
}

/// See the module.
pub(super) struct World {
    pub(super) now: u64,
    began: Instant,
    /// How far the wall clock is off, in milliseconds.
    pub(super) wall_off: i64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    /// The task that runs.
    pub(super) task: u64,
    pub(super) random: fastrand::Rng,
    pub(super) incus: Incus,
    pub(super) azure: Azure,
    /// Until when what is wrong.
    wrong: BTreeMap<Mishap, u64>,
    /// Since when the pool is paused.
    pub(super) paused_since: Option<u64>,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    /// Which life of iapd it is.
    pub(super) life: u64,
    /// What happened how often.
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) steps: u64,
    told: VecDeque<String>,
    /// What was told when the first thing happened that must not.
    pub(super) story: String,
    /// What must not be.
    pub(super) wrongs: Vec<String>,
}

/// How much of the story is kept for whoever reads a failure.
const STORY: usize = 160;

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: 0,
            began: Instant::now() + Duration::from_secs(1_000_000),
            wall_off: 0,
            queue: BTreeMap::new(),
            next: 0,
            task: 0,
            random: fastrand::Rng::with_seed(seed),
            incus: Incus::default(),
            azure: Azure::default(),
            wrong: BTreeMap::new(),
            paused_since: None,
            calm: false,
            life: 0,
            counts: BTreeMap::new(),
            steps: 0,
            told: VecDeque::new(),
            story: String::new(),
            wrongs: Vec::new(),
        }
    }

    /// Lets something happen so many milliseconds from now.
    pub(super) fn after(&mut self, length: u64, event: Event) {
        self.queue.insert((self.now + length, self.next), event);
        self.next += 1;
    }

    /// Goes on to what happens next.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = at;
        self.steps += 1;
        Some(event)
    }

    pub(super) fn instant(&self) -> Instant {
        self.at(self.now)
    }

    pub(super) fn at(&self, now: u64) -> Instant {
        self.began + Duration::from_millis(now)
    }

    /// The reverse of `at`.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn wall(&self) -> Timestamp {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(1_000_000_000_000 + now + self.wall_off).unwrap_or_default()
    }

    /// True so many times of a thousand.
    pub(super) fn chance(&mut self, of_thousand: u32) -> bool {
        self.random.u32(..1000) < of_thousand
    }

    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.random.u64(from..to)
    }

    /// An exponential wait around `mean`.
    pub(super) fn about(&mut self, mean: u64) -> u64 {
        let factor = -(1.0 - self.random.f64()).ln();
        std::time::Duration::from_millis(mean)
            .mul_f64(factor.min(8.0))
            .as_millis()
            .try_into()
            .unwrap_or(mean)
    }

    pub(super) fn begin_wrong(&mut self, what: Mishap, length: u64) {
        let until = self.now + length;
        let old = self.wrong.entry(what).or_default();
        *old = until.max(*old);
    }

    pub(super) fn is_wrong(&self, what: Mishap) -> bool {
        !self.calm && self.wrong.get(&what).is_some_and(|until| self.now < *until)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Tells what happened, for whoever reads a failure.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() == STORY {
            self.told.pop_front();
        }
        let seconds = self.now / 1000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let line = format!(
            "{hours:>3}:{minutes:02}:{:02}.{:03} {}",
            seconds % 60,
            self.now % 1000,
            what()
        );
        self.told.push_back(line);
    }

    /// An instance is asked for: a pool that is paused for long has none made.
    pub(super) fn may_be_made(&mut self, name: &str) {
        let long_ago = |since: u64| self.now > since + 3 * MINUTE;
        if self.paused_since.is_some_and(long_ago) {
            self.violation(format!("creates {name} although the pool is paused"));
        }
    }

    /// Something that must not be.
    pub(super) fn violation(&mut self, what: String) {
        self.tell(|| format!("!!! {what}"));
        if self.wrongs.is_empty() {
            let lines: Vec<&str> = self.told.iter().map(String::as_str).collect();
            self.story = lines.join("\n");
        }
        self.wrongs.push(what);
    }
}
